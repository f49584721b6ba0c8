import os

# Before torch is imported: tests run side by side, one core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
