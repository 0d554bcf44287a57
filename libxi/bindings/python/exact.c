/* SPDX-License-Identifier: MIT */
/*
 * Types of the standard library that travel natively, where that is exact:
 * date, time, datetime (naive, or with a fixed offset of whole seconds and no
 * name of its own), timedelta, UUID, Decimal, Fraction, range; and xidata's own
 * handles. What is not exact goes by pickle, and what is no type of these as types.c knows.
 *
 * A module is imported when the first object of one of its types turns up (who
 * has such an object has imported it already) or is received.
 */
#include "binding.h"

/* --------------------------------------------------------------- loading */

static PyDateTime_CAPI *datetime_api(State *st) {
    if (XI_UNLIKELY(!st->datetime_api))
        st->datetime_api = datetime_import(st);
    return st->datetime_api;
}

static int load_uuid(State *st) {
    if (load_type(&st->uuid, "uuid", "UUID") < 0)
        return -1;
    if (st->uuid_unknown)
        return 0;
    PyObject *safe = NULL;
    int rc = load_attribute(&safe, "uuid", "SafeUUID");
    if (rc == 0)
        st->uuid_unknown = PyObject_GetAttrString(safe, "unknown");
    Py_XDECREF(safe);
    return st->uuid_unknown ? 0 : -1;
}

/* Loads what an object of this type could need. True if something was loaded that was not there before. */
static int load_for(State *st, PyTypeObject *type) {
    const char *name = TYPE_NAME(type);
    if (!st->datetime_api && strncmp(name, "datetime.", 9) == 0)
        return datetime_api(st) ? 1 : -1;
    if (!st->uuid && strcmp(name, "UUID") == 0)
        return load_uuid(st) < 0 ? -1 : 1;
    if (!st->decimal && strcmp(name, "decimal.Decimal") == 0)
        return load_type(&st->decimal, "decimal", "Decimal") < 0 ? -1 : 1;
    if (!st->fraction && strcmp(name, "Fraction") == 0)
        return load_type(&st->fraction, "fractions", "Fraction") < 0 ? -1 : 1;
    if (!st->interp_id && strcmp(name, "InterpreterId") == 0)
        return load_attribute(&st->interp_id, "xidata", "InterpreterId") < 0 ? -1 : 1;
    return 0;
}

/* ---------------------------------------------------------------- encode */

static int encode_ext(Encoder *e, enum xi_ext ext, size_t room) {
    if (encoder_room(e, 16 + room) < 0)
        return -1;
    int error = xi_begin_ext(&e->b, (uint16_t)ext);
    return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
}

static int end_ext(Encoder *e) {
    int error = xi_end(&e->b);
    return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
}

/* ext(tuple of n ints), the last of them left out (none) if `none`. */
static int encode_fields(Encoder *e, enum xi_ext ext, const int *field, int n, bool none) {
    int rc = DATETIME_FAILED() ? -1 : encode_ext(e, ext, 48 + 24 * (size_t)n);
    if (rc)
        return rc;
    (void)xi_begin(&e->b, XI_TUPLE, (uint64_t)n);
    for (int i = 0; i < n; i++)
        (void)(none && i == n - 1 ? xi_put_none(&e->b) : xi_put_int(&e->b, field[i]));
    (void)xi_end(&e->b); /* errors stick */
    return end_ext(e);
}

/* The offset of a tzinfo in whole seconds. 0; ENCODE_PICKLE if it is not just that; -1. */
static int fixed_offset(State *st, PyObject *tz, int *seconds, bool *none) {
    PyDateTime_CAPI *api = st->datetime_api;
    *seconds = 0;
    if (!tz)
        return -1;
    *none = tz == Py_None;
    if (*none || tz == api->TimeZone_UTC)
        return 0;
    if (Py_TYPE(tz) != Py_TYPE(api->TimeZone_UTC))
        return ENCODE_PICKLE;
    PyObject *args = PyObject_CallMethod(tz, "__getinitargs__", NULL);
    if (!args)
        return -1;
    int rc = ENCODE_PICKLE; /* it has a name, or microseconds */
    PyObject *delta = PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (delta && Py_TYPE(delta) == api->DeltaType && PyDateTime_DELTA_GET_MICROSECONDS(delta) == 0) {
        *seconds = PyDateTime_DELTA_GET_DAYS(delta) * 86400 + PyDateTime_DELTA_GET_SECONDS(delta);
        rc = 0;
    }
    Py_DECREF(args);
    return rc;
}

static int encode_date(Encoder *e, PyObject *o) {
    int field[] = {PyDateTime_GET_YEAR(o), PyDateTime_GET_MONTH(o), PyDateTime_GET_DAY(o)};
    return encode_fields(e, XI_EXT_DATE, field, 3, false);
}

static int encode_timedelta(Encoder *e, PyObject *o) {
    int field[] = {PyDateTime_DELTA_GET_DAYS(o), PyDateTime_DELTA_GET_SECONDS(o), PyDateTime_DELTA_GET_MICROSECONDS(o)};
    return encode_fields(e, XI_EXT_TIMEDELTA, field, 3, false);
}

static int encode_time(Encoder *e, PyObject *o) {
    int offset;
    bool none;
    int rc = fixed_offset(e->st, PyDateTime_TIME_GET_TZINFO(o), &offset, &none);
    if (rc)
        return rc;
    int field[] = {PyDateTime_TIME_GET_HOUR(o),        PyDateTime_TIME_GET_MINUTE(o), PyDateTime_TIME_GET_SECOND(o),
                   PyDateTime_TIME_GET_MICROSECOND(o), PyDateTime_TIME_GET_FOLD(o),   offset};
    return encode_fields(e, XI_EXT_TIME, field, 6, none);
}

static int encode_datetime(Encoder *e, PyObject *o) {
    int offset;
    bool none;
    int rc = fixed_offset(e->st, PyDateTime_DATE_GET_TZINFO(o), &offset, &none);
    if (rc)
        return rc;
    int field[] = {PyDateTime_GET_YEAR(o),        PyDateTime_GET_MONTH(o),           PyDateTime_GET_DAY(o),
                   PyDateTime_DATE_GET_HOUR(o),   PyDateTime_DATE_GET_MINUTE(o),     PyDateTime_DATE_GET_SECOND(o),
                   PyDateTime_DATE_GET_MICROSECOND(o), PyDateTime_DATE_GET_FOLD(o),  offset};
    return encode_fields(e, XI_EXT_DATETIME, field, 9, none);
}

/* ext(attribute), through `method` if that is not NULL; -1, 0 or ENCODE_PICKLE. */
static int encode_attribute(Encoder *e, enum xi_ext ext, PyObject *value) {
    int rc = value ? encode_ext(e, ext, 0) : -1;
    if (rc == 0)
        rc = encode(e, value);
    Py_XDECREF(value);
    return rc ? rc : end_ext(e);
}

static int encode_uuid(Encoder *e, PyObject *o) {
    PyObject *safe = PyObject_GetAttrString(o, "is_safe");
    Py_XDECREF(safe);
    if (!safe)
        return -1;
    if (safe != e->st->uuid_unknown)
        return ENCODE_PICKLE; /* it says how it was made, and shall go on saying so */
    return encode_attribute(e, XI_EXT_UUID, PyObject_GetAttrString(o, "bytes"));
}

/* ext(tuple of the named attributes). */
static int encode_attributes(Encoder *e, enum xi_ext ext, PyObject *o, const char *const *names, int n) {
    PyObject *tuple = PyTuple_New(n);
    for (int i = 0; i < n && tuple; i++) {
        PyObject *attribute = PyObject_GetAttrString(o, names[i]);
        if (attribute)
            PyTuple_SET_ITEM(tuple, i, attribute);
        else
            Py_CLEAR(tuple);
    }
    return encode_attribute(e, ext, tuple);
}

static int encode_handle(Encoder *e, PyObject *o) {
    if (Py_TYPE(o) == e->st->channel_type)
        return encode_attribute(e, XI_EXT_CHANNEL, PyUnicode_FromString(((Channel *)o)->name));
    int64_t id;
    if (!interp_id_converter(e->st, o, &id))
        return -1;
    return encode_attribute(e, XI_EXT_INTERP, PyLong_FromLongLong(id));
}

/* -1, 0, ENCODE_PICKLE: as encode(). ENCODE_PICKLE also when the type is none of these. */
static int encode_known(Encoder *e, PyObject *o) {
    static const char *const ratio[] = {"numerator", "denominator"};
    static const char *const bounds[] = {"start", "stop", "step"};
    State *st = e->st;
    PyTypeObject *type = Py_TYPE(o);
    PyDateTime_CAPI *api = st->datetime_api;
    if (api && type == api->DateTimeType)
        return encode_datetime(e, o);
    if (api && type == api->DateType)
        return encode_date(e, o);
    if (api && type == api->DeltaType)
        return encode_timedelta(e, o);
    if (api && type == api->TimeType)
        return encode_time(e, o);
    if (type == st->uuid)
        return encode_uuid(e, o);
    if (type == st->decimal)
        return encode_attribute(e, XI_EXT_DECIMAL, PyObject_Str(o));
    if (type == st->fraction)
        return encode_attributes(e, XI_EXT_FRACTION, o, ratio, 2);
    if (type == &PyRange_Type)
        return encode_attributes(e, XI_EXT_RANGE, o, bounds, 3);
    if (type == st->channel_type || type == st->interp_type || type == st->reference_type ||
        (PyObject *)type == st->interp_id)
        return encode_handle(e, o);
    return ENCODE_PICKLE;
}

int encode_foreign(Encoder *e, PyObject *o) {
    int rc = encode_known(e, o);
    if (rc != ENCODE_PICKLE)
        return rc;
    int loaded = load_for(e->st, Py_TYPE(o));
    if (loaded > 0)
        rc = encode_known(e, o);
    return loaded < 0 ? -1 : rc == ENCODE_PICKLE ? encode_planned(e, o) : rc;
}

/* ---------------------------------------------------------------- decode */

static PyObject *not_valid(State *st, uint32_t ext) {
    PyErr_Format(st->errors[-XI_E_CORRUPT], "a received extension value (%u) has another payload than its id asks for",
                 (unsigned)ext);
    return NULL;
}

/* The ints of the tuple inside ext `v`; with `none` the last may be none. -1 with an exception. */
static int read_fields(State *st, const xi_value *v, int *field, unsigned n, bool *none) {
    xi_value tuple, item;
    xi_cursor c;
    unsigned got = 0;
    int rc;
    if (decode_child(st, v, &tuple) < 0)
        return -1;
    if (tuple.tag != XI_TUPLE || tuple.count != n || xi_enter(&tuple, &c) < 0) {
        not_valid(st, v->aux);
        return -1;
    }
    while ((rc = xi_next(&c, &item)) == 1 && got < n) {
        int64_t number = 0;
        bool empty = none && item.tag == XI_NONE && got == n - 1;
        if (empty)
            *none = true;
        else if (xi_get_int(&item, &number) < 0 || number != (int)number)
            break;
        field[got++] = (int)number;
    }
    if (rc == 0 && got == n)
        return 0;
    not_valid(st, v->aux);
    return -1;
}

/* New reference: the timezone of so many seconds, None without. */
static PyObject *make_timezone(PyDateTime_CAPI *api, int seconds, bool none) {
    if (none)
        return Py_NewRef(Py_None);
    if (seconds == 0)
        return Py_NewRef(api->TimeZone_UTC);
    PyObject *delta = api->Delta_FromDelta(0, seconds, 0, 1, api->DeltaType);
    PyObject *tz = delta ? api->TimeZone_FromTimeZone(delta, NULL) : NULL;
    Py_XDECREF(delta);
    return tz;
}

static PyObject *decode_datetime(State *st, const xi_value *v) {
    PyDateTime_CAPI *api = datetime_api(st);
    int f[9];
    bool none = false;
    if (!api || read_fields(st, v, f, 9, &none) < 0)
        return NULL;
    PyObject *tz = make_timezone(api, f[8], none);
    PyObject *o = tz ? api->DateTime_FromDateAndTimeAndFold(f[0], f[1], f[2], f[3], f[4], f[5], f[6], tz, f[7],
                                                            api->DateTimeType)
                     : NULL;
    Py_XDECREF(tz);
    return o;
}

static PyObject *decode_time(State *st, const xi_value *v) {
    PyDateTime_CAPI *api = datetime_api(st);
    int f[6];
    bool none = false;
    if (!api || read_fields(st, v, f, 6, &none) < 0)
        return NULL;
    PyObject *tz = make_timezone(api, f[5], none);
    PyObject *o = tz ? api->Time_FromTimeAndFold(f[0], f[1], f[2], f[3], tz, f[4], api->TimeType) : NULL;
    Py_XDECREF(tz);
    return o;
}

static PyObject *decode_date(State *st, const xi_value *v) {
    PyDateTime_CAPI *api = datetime_api(st);
    int f[3];
    if (!api || read_fields(st, v, f, 3, NULL) < 0)
        return NULL;
    return api->Date_FromDate(f[0], f[1], f[2], api->DateType);
}

static PyObject *decode_timedelta(State *st, const xi_value *v) {
    PyDateTime_CAPI *api = datetime_api(st);
    int f[3];
    if (!api || read_fields(st, v, f, 3, NULL) < 0)
        return NULL;
    return api->Delta_FromDelta(f[0], f[1], f[2], 1, api->DeltaType);
}

/* The payload as an object, if its tag is the one that the extension has. */
static PyObject *payload(Decoder *d, const xi_value *v, unsigned tag) {
    xi_value child;
    if (decode_child(d->st, v, &child) < 0)
        return NULL;
    return child.tag == tag ? decode(d, &child) : not_valid(d->st, v->aux);
}

static PyObject *decode_uuid(Decoder *d, const xi_value *v) {
    xi_value child;
    if (load_uuid(d->st) < 0 || decode_child(d->st, v, &child) < 0)
        return NULL;
    if (child.tag != XI_BYTES || child.length != 16)
        return not_valid(d->st, v->aux);
    PyObject *keywords = Py_BuildValue("{s:N}", "bytes", PyBytes_FromStringAndSize((const char *)child.data, 16));
    PyObject *none = keywords ? PyTuple_New(0) : NULL;
    PyObject *o = none ? PyObject_Call((PyObject *)d->st->uuid, none, keywords) : NULL;
    Py_XDECREF(keywords);
    Py_XDECREF(none);
    return o;
}

static PyObject *decode_decimal(Decoder *d, const xi_value *v) {
    PyObject *text = load_type(&d->st->decimal, "decimal", "Decimal") < 0 ? NULL : payload(d, v, XI_STR);
    PyObject *o = text ? PyObject_CallFunctionObjArgs((PyObject *)d->st->decimal, text, NULL) : NULL;
    Py_XDECREF(text);
    return o;
}

/* class(*payload), the payload being a tuple of n ints. */
static PyObject *decode_call(Decoder *d, const xi_value *v, PyTypeObject *type, Py_ssize_t n) {
    PyObject *args = payload(d, v, XI_TUPLE), *o = NULL;
    bool good = args && PyTuple_GET_SIZE(args) == n;
    for (Py_ssize_t i = 0; i < n && good; i++)
        good = PyLong_Check(PyTuple_GET_ITEM(args, i));
    if (good)
        o = PyObject_Call((PyObject *)type, args, NULL);
    else if (args)
        not_valid(d->st, v->aux);
    Py_XDECREF(args);
    return o;
}

static PyObject *decode_interp(Decoder *d, const xi_value *v) {
    xi_value child;
    int64_t id;
    if (decode_child(d->st, v, &child) < 0)
        return NULL;
    return xi_get_int(&child, &id) < 0 ? not_valid(d->st, v->aux) : interp_id_new(d->st, id);
}

static PyObject *decode_channel(Decoder *d, const xi_value *v) {
    PyObject *name = payload(d, v, XI_STR);
    const char *text = name ? PyUnicode_AsUTF8(name) : NULL;
    PyObject *o = text ? channel_open_named(d->ch->interp, text) : NULL;
    Py_XDECREF(name);
    return o;
}

PyObject *decode_ext(Decoder *d, const xi_value *v) {
    State *st = d->st;
    switch (v->aux) {
    case XI_EXT_DATE: return decode_date(st, v);
    case XI_EXT_TIME: return decode_time(st, v);
    case XI_EXT_DATETIME: return decode_datetime(st, v);
    case XI_EXT_TIMEDELTA: return decode_timedelta(st, v);
    case XI_EXT_UUID: return decode_uuid(d, v);
    case XI_EXT_DECIMAL: return decode_decimal(d, v);
    case XI_EXT_FRACTION:
        return load_type(&st->fraction, "fractions", "Fraction") < 0 ? NULL : decode_call(d, v, st->fraction, 2);
    case XI_EXT_INTERP: return decode_interp(d, v);
    case XI_EXT_CHANNEL: return decode_channel(d, v);
    case XI_EXT_RANGE: return decode_call(d, v, &PyRange_Type, 3);
    case XI_EXT_ENUM:
    case XI_EXT_NAMEDTUPLE:
    case XI_EXT_DATACLASS:
    case XI_EXT_EXCEPTION: return decode_planned(d, v);
    default:
        if (v->aux >= XI_EXT_USERS)
            return decode_planned(d, v);
        PyErr_Format(st->errors[-XI_E_TYPE], "an extension value with the id %u: nothing here knows what that is",
                     (unsigned)v->aux);
        return NULL;
    }
}
