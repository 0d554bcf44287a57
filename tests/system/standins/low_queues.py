# SPDX-License-Identifier: MIT
"""_interpqueues of CPython 3.13 on the queues of xidata.interpreters. An id here holds the queue's default format, too."""

from xidata import interpreters as xi
from xidata._crossinterp import BY_FLAG, unbound_flag
from xidata._iqueues import Queue, create as create_queue

import _interpreters

QueueError, QueueNotFoundError = xi.QueueError, xi.QueueNotFoundError
SHARED_ONLY = 0

_held = {}  # id: [object, references counted]
_types = {}


def _register_heap_types(queue, empty, full):
    _types.update(queue=queue, empty=empty, full=full)


def _object(id):
    return _held[id][0] if id in _held else Queue(id >> 1)


def create(maxsize, fmt, unboundop):
    queue = create_queue(maxsize, unbounditems=BY_FLAG[unboundop])
    id = queue.id << 1 | fmt
    _held[id] = [queue, 0]
    return id


def destroy(id):
    import xidata

    queue = _object(id)
    _held.pop(id, None)
    try:
        xidata.remove(queue._channel.name)
    except xidata.NotFound:
        raise QueueNotFoundError("queue %d not found" % id) from None


def list_all():
    found = []
    for queue in xi.list_queues():
        for fmt in (0, 1):
            if queue.id << 1 | fmt in _held or fmt == 1 and queue.id << 1 not in _held:
                found.append((queue.id << 1 | fmt, fmt, unbound_flag(queue.unbounditems)))
                break
    return found


def bind(id):
    _held.setdefault(id, [_object(id), 0])[1] += 1


def release(id):
    if id not in _held:
        raise QueueNotFoundError("queue %d not found" % id)
    held = _held[id]
    if not held[1]:
        raise QueueError("queue %d is not bound" % id)
    held[1] -= 1
    if not held[1]:
        del _held[id]


def put(id, obj, fmt, unboundop):
    if fmt == SHARED_ONLY and not (_interpreters.is_shareable(obj) or isinstance(obj, _types["queue"])):
        raise _interpreters.NotShareableError("%r is not shareable" % (obj,))
    try:
        _object(id).put_nowait((fmt, obj), unbounditems=BY_FLAG[unboundop])
    except xi.QueueFull as error:
        raise _types["full"](str(error)) from None


def get(id):
    try:
        item = _object(id).get_nowait()
    except xi.QueueEmpty as error:
        raise _types["empty"](str(error)) from None
    except xi.ItemInterpreterDestroyed:
        return None, None, unbound_flag(xi.UNBOUND_ERROR)
    if item is xi.UNBOUND:
        return None, None, unbound_flag(xi.UNBOUND)
    fmt, obj = item
    return obj, fmt, None


def get_maxsize(id):
    return _object(id).maxsize


def get_queue_defaults(id):
    return id & 1, unbound_flag(_object(id).unbounditems)


def is_full(id):
    return _object(id).full()


def get_count(id):
    return _object(id).qsize()
