"""Memory that is used again instead of being given back: the system clears every page that it gives."""

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_pages() -> bool:
    """Tell the allocator of this process to keep what is freed for what is asked for next, and say whether it does.

    Automatic differentiation asks for new memory for every activation. By default glibc gives large pieces back to the
    system at once, which clears each page when it is touched again; at 320×320 and 64 channels that costs a fifth of
    ∇E (projects/speed). The process then holds on to its peak. Other allocators than glibc's, and other systems, are
    left alone; calling it again changes nothing.
    """
    try:
        glibc, program = ctypes.CDLL("libc.so.6"), ctypes.CDLL(None)
        addresses = [ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (glibc, program)]
        if addresses[0] != addresses[1]:  # another allocator was loaded before it
            return False
        # Large pieces from the heap as well, and the heap's end never given back.
        return bool(glibc.mallopt(_M_MMAP_MAX, 0) and glibc.mallopt(_M_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False
