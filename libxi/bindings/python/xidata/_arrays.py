# SPDX-License-Identifier: MIT
"""
numpy arrays in shared memory from the first: empty(), zeros(), asarray().

Such an array is a plain numpy.ndarray whose memory is a loan, a block of this interpreter's arena. Sending it, alone or
anywhere inside a value, moves the block: nothing is copied, whatever its size, and the receiver gets an array in the same
memory, read-only, for as long as it likes.

What the sender has left is read-only. Arrays that were made of it before (slices, reshapes) could still write, so while
there are any it is not sent: BufferError. What numpy does not tell of, a memoryview or a ctypes pointer, is to be let go of
by hand; who does not changes what the receivers see, and nothing else, since the memory is used for nothing new while the
sender has anything of the array.
"""

from ._xidata import _memory

try:
    import numpy
except ImportError:  # not needed by anything else here
    numpy = None


def empty(shape, dtype=float, order="C", *, interpreter=None):
    """
    An array in shared memory, to be filled and then sent without a copy. Its contents are undefined at first.

    shape, dtype, order: as numpy.empty() has them; no dtype with objects in it. interpreter: whose channels it is for, the
    current one unless told. For another's it is copied, as other arrays are.

    Sent, it is read-only. It is not sent (BufferError) while other arrays made of it exist. If the send fails it is
    writable again.

    >>> import xidata
    >>> frames = xidata.channel("frames")
    >>> frame = xidata.empty((1080, 1920, 3), "u1")
    >>> frame[:] = 7
    >>> frames.send({"number": 1, "pixels": frame})
    >>> frame.flags.writeable
    False
    >>> got = frames.recv()["pixels"]
    >>> got.shape, int(got.max()), got.flags.writeable
    ((1080, 1920, 3), 7, False)
    """
    return _new(shape, dtype, order, interpreter, False)


def zeros(shape, dtype=float, order="C", *, interpreter=None):
    """
    As empty(), with all bytes zero.

    >>> import xidata
    >>> xidata.zeros(3).tolist()
    [0.0, 0.0, 0.0]
    """
    return _new(shape, dtype, order, interpreter, True)


def asarray(a, dtype=None, order=None, *, interpreter=None):
    """
    `a` as an array that is sent without a copy: itself, if it is one already, else a copy of it made by empty().

    dtype and order are as of numpy.asarray().

    >>> import xidata
    >>> pixels = xidata.asarray([[1, 2], [3, 4]], "u1")
    >>> pixels.tolist()
    [[1, 2], [3, 4]]
    >>> xidata.asarray(pixels) is pixels
    True
    """
    _need_numpy()
    source = numpy.asarray(a, dtype=dtype, order=order)
    if source is a and _is_ours(a):
        return a
    fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    array = empty(source.shape, source.dtype, "F" if fortran else "C", interpreter=interpreter)
    array[...] = source
    return array


def _need_numpy():
    if numpy is None:
        raise ImportError("arrays need numpy, which is not installed; xidata.buffer() gives plain memory")


def _new(shape, dtype, order, interpreter, clear):
    _need_numpy()
    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise TypeError("an array of objects cannot lie in shared memory: dtype %r" % (dtype,))
    if order not in ("C", "F"):
        raise ValueError("order is 'C' or 'F', not %r" % (order,))
    shape = (shape,) if hasattr(shape, "__index__") else tuple(shape)
    size = dtype.itemsize
    for n in shape:
        if n < 0:
            raise ValueError("negative dimensions are not allowed")
        size *= int(n)
    memory = _memory(size, interpreter)
    if clear:
        numpy.ndarray(size, "u1", memory).fill(0)
    # A view of the array that has the memory: see array.c, "moving".
    return numpy.ndarray(shape, dtype, memory, 0, None, order)[...]


def _is_ours(a):
    """Whether a send moves it."""
    from ._xidata import Loan

    root = a.base
    if type(a) is not numpy.ndarray or type(root) is not numpy.ndarray or type(root.base) is not Loan:
        return False
    return a.flags.writeable and a.nbytes == root.nbytes and (a.flags.c_contiguous or a.flags.f_contiguous)
