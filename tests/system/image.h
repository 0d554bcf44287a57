/* SPDX-License-Identifier: MIT */
/*
 * A namespace as a killed broker leaves it, with an interpreter that died in
 * mid-operation and one that lives: kept in memory, laid out again in /dev/shm
 * as often as wanted, and adopted by a broker in this very process.
 */
#ifndef XI_TEST_IMAGE_H
#define XI_TEST_IMAGE_H

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "broker.h"
#include "log.h"
#include "scene.h"

#define IMAGE_FILES 64
#define NEAR_DEPTH 3
struct image_file {
    char name[XI_SHM_NAME_MAX];
    size_t size, kept; /* kept: bytes from the start that are written again; of an arena's data its first page */
    uint64_t *bytes;
    uint32_t kind;
    bool is_near; /* the segment of the channel that is never spoilt by accident */
};
static struct image {
    char ns[32];
    struct image_file file[IMAGE_FILES];
    unsigned count;
    pid_t living;
} image;
static struct gate image_made, image_joined;

/* ------------------------------------------------------------- making it */

static inline void image_be_living(void *argument) {
    (void)argument;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it is not to be left over by a crash */
    gate_pass(&image_made);
    xi_interp *me = join_ns(image.ns, "living", 0);
    for (uint64_t i = 0; i < KINDS; i++) {
        char name[40];
        snprintf(name, sizeof name, "words-%" PRIu64, i);
        (void)open_with(me, name, &(xi_open_opts){.flags = XI_OPEN_SEND});
    }
    gate_lift(&image_joined, 1);
    for (;;) pause();
}

/* In mid-operation, as far as a word says so: both locks of one channel, and a group's of another. */
static inline void image_hold_locks(struct scene *s) {
    xi_store_relaxed(&s[QUEUE].out->chan->lock, s[QUEUE].out->lock_word);
    xi_store_relaxed(&s[QUEUE].in->group->lock, s[QUEUE].in->lock_word);
    xi_store_relaxed(&s[ACKING].in->group->lock, s[ACKING].in->lock_word);
    xi_store_relaxed(&s[KEEPING].out->chan->lock, s[KEEPING].out->lock_word);
}

static inline void image_be_dying(void *argument) {
    static struct scene s[KINDS];
    (void)argument;
    sender = join_ns(image.ns, "sender", 0);
    receiver = join_ns(image.ns, "receiver", 0);
    scene_values();
    xi_channel *near = open_queue(sender, "near");
    for (int i = 0; i < NEAR_DEPTH; i++) must(xi_send_int(near, i, XI_TRY));
    for (int kind = 0; kind < KINDS; kind++) scene_begin(&s[kind], (enum kind)kind, (uint64_t)kind);
    gate_lift(&image_made, 1);
    gate_pass(&image_joined);
    pid_t broker = broker_pid(sender);
    must_sys(kill(broker, SIGKILL));
    expect(wait_end(broker, 10000), "the broker does not die");
    image_hold_locks(s);
    raise(SIGKILL);
}

static inline void image_read(const char *file) {
    struct image_file *f = &image.file[image.count];
    struct stat st;
    struct xi_segment head;
    char path[300];
    snprintf(path, sizeof path, "/dev/shm/%s", file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    expect(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path, strerror(errno));
    expect(image.count < IMAGE_FILES, "more than %d segments", IMAGE_FILES);
    snprintf(f->name, sizeof f->name, "/%.70s", file);
    expect(pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head, "%s has no head", path);
    f->size = (size_t)st.st_size;
    f->kind = head.kind;
    f->kept = head.kind == XI_SEG_ARENA ? XI_PAGE : f->size;
    f->bytes = malloc(f->kept);
    expect(f->bytes && pread(fd, f->bytes, f->kept, 0) == (ssize_t)f->kept, "%s cannot be read", path);
    close(fd);
    const struct xi_chan *c = (const void *)f->bytes;
    f->is_near = head.kind == XI_SEG_CHANNEL && c->tail_seq == NEAR_DEPTH && c->groups[0].head_seq == 0 && c->tail < 256;
    image.count++;
}

static inline int image_order(const void *a, const void *b) {
    return strcmp(((const struct image_file *)a)->name, ((const struct image_file *)b)->name);
}

static inline void image_remove(void) {
    for (unsigned i = 0; i < image.count; i++) shm_unlink(image.file[i].name);
}

/* Makes the namespace, kills it, and takes it off. */
static inline void image_take(const char *ns) {
    char prefix[64];
    image.count = 0;
    snprintf(image.ns, sizeof image.ns, "%s", ns);
    image_made = gate_new();
    image_joined = gate_new();
    image.living = spawn(image_be_living, NULL);
    pid_t dying = spawn(image_be_dying, NULL);
    reap_signalled(dying, SIGKILL, "who made the scenes");
    int n = snprintf(prefix, sizeof prefix, "xi.%u.%s.", (unsigned)getuid(), ns);
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(dir));)
        if (strncmp(e->d_name, prefix, (size_t)n) == 0) image_read(e->d_name);
    closedir(dir);
    qsort(image.file, image.count, sizeof *image.file, image_order);
    image_remove();
}

static inline void image_drop(void) {
    kill(image.living, SIGKILL);
    (void)reap(image.living);
    image_remove();
    for (unsigned i = 0; i < image.count; i++) free(image.file[i].bytes);
    image.count = 0;
}

/* -------------------------------------------------------------- using it */

/* Lays it out again. */
static inline void image_restore(void) {
    for (unsigned i = 0; i < image.count; i++) {
        const struct image_file *f = &image.file[i];
        int fd = shm_open(f->name, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
        expect(fd >= 0 && pwrite(fd, f->bytes, f->kept, 0) == (ssize_t)f->kept && ftruncate(fd, (off_t)f->size) == 0,
               "%s: %s", f->name, strerror(errno));
        close(fd);
    }
}

static inline void image_write(unsigned file, size_t offset, uint64_t value) {
    int fd = shm_open(image.file[file].name, O_RDWR | O_CLOEXEC, 0);
    expect(fd >= 0 && pwrite(fd, &value, sizeof value, (off_t)offset) == (ssize_t)sizeof value, "%s: %s", image.file[file].name,
           strerror(errno));
    close(fd);
}

static inline void image_tick(void *timer) { ((struct timer *)timer)->at = loop_now() + MS; }

/* A broker that comes to it, repairs, and collects; true if the channel "near" is as it was. Then all of it is removed. */
static inline bool image_adopt(int64_t patience) {
    static struct broker b;
    static struct timer tick;
    static const struct state_limits limits = STATE_LIMITS_DEFAULT;
    struct broker_options options = {.ns = image.ns, .wait = LOOP_POLL, .limits = limits, .other_limits = limits};
    int rc = broker_init(&b, &options);
    bool near_is_whole = false;
    if (rc == 0) {
        loop_timer(b.loop, &tick, image_tick, &tick);
        image_tick(&tick);
        int64_t until = loop_now() + patience;
        do broker_turn(&b);
        while ((b.recover.mends || b.queue_count || b.recover.sweep.active) && loop_now() < until);
        const char *why;
        expect(state_is_valid(&b.state, &why), "the broker's state is not valid: %s", why);
        for (uint32_t i = 0; i < b.state.chan_capacity; i++) {
            struct xi_chan_view view;
            if (!b.state.chans[i].id || strcmp(b.state.chans[i].name, "near") != 0) continue;
            near_is_whole = world_view(&b.world, &b.state.chans[i], &view) && xi_channel_depth(&view) == NEAR_DEPTH;
        }
    }
    broker_deinit(&b);
    return near_is_whole;
}

#endif
