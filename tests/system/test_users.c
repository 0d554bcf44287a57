/* SPDX-License-Identifier: MIT */
/*
 * A namespace that is open to other users, with processes of five of them: who
 * may join, who may open what and for what, which descriptors they get, and that
 * these give no more than they should. Alice serves it; Bob and Carol may join by
 * their numbers, Dave by his group, Mallory may not.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "interp/interp.h"
#include "users.h"
#include "wire/layout.h"

#define LAB "61001/lab"
#define BIG 400000

static struct gate ready, done; /* Alice has opened her channels; everybody is through with them */

static xi_interp *join_lab(const char *name) { return join_ns(getuid() == alice.uid ? "lab" : LAB, name, 0); }

static xi_channel *open_for(xi_interp *me, const char *name, uint32_t flags) {
    return open_with(me, name, &(xi_open_opts){.flags = flags | XI_OPEN_EXISTING});
}

static void must_not_open(xi_interp *me, const char *name, uint32_t flags, const char *words) {
    xi_channel *ch = NULL;
    xi_open_opts opts = {.flags = flags};
    must_fail(XI_E_ACCESS, xi_open(me, name, &opts, &ch));
    expect(strstr(xi_error_text(XI_E_ACCESS), words) != NULL, "\"%s\" does not say \"%s\"", xi_error_text(XI_E_ACCESS), words);
}

/* ---- values from one to another */

static void send_padded(xi_channel *ch, int64_t number, size_t padding) {
    char *buffer = malloc(padding + 128);
    expect(buffer != NULL, "out of memory");
    must(xi_send(ch, buffer, encode_padded(buffer, padding + 128, number, padding), 5 * SECOND));
    free(buffer);
}

static void receive_padded(xi_channel *ch, int64_t number, size_t padding) {
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, 5 * SECOND));
    expect(message_int(&m) == number && m.size >= padding, "%lld of %zu bytes came", (long long)message_int(&m), m.size);
    must(xi_validate(m.data, m.size));
    for (size_t i = 24; i < padding; i += 4096)
        expect(((const uint8_t *)m.data)[i + 32] == (uint8_t)number, "byte %zu is not what was sent", i);
    expect(padding < 10000 || xi_msg_borrowed(&m), "a large value was copied");
    xi_msg_release(&m);
}

static void all_freed(xi_interp *me) {
    xi_stats stats;
    int64_t until = now_ns() + 5 * SECOND;
    do {
        (void)xi_free_run(me);
        xi_interp_stats(me, &stats);
    } while (stats.blocks && now_ns() < until && poll(NULL, 0, 1) == 0);
    expect(stats.blocks == 0, "%llu blocks did not come back", (unsigned long long)stats.blocks);
}

/* ---- who is who */

static void alice_serves(void *unused) {
    (void)unused;
    static const struct {
        const char *name, *access;
    } channels[] = {{"to-bob", "61002:r"}, {"from-bob", "#61002:w"}, {"group", "@61050:rw"}, {"mine", NULL}, {"all", "*:r"}};
    xi_interp *me = join_lab("alice");
    xi_channel *ch[5];
    for (int i = 0; i < 5; i++) {
        ch[i] = open_with(me, channels[i].name, &(xi_open_opts){.access = channels[i].access});
        expect(xi_channel_shared(ch[i]) == (i != 3), "%s is%s shared", channels[i].name, i == 3 ? "" : " not");
    }
    xi_channel_info info;
    must(xi_channel_stat(ch[1], &info));
    expect(strcmp(info.access, "61002:w") == 0 && info.owner == alice.uid && info.shared_with_others == 1, "stat says %s, %u",
           info.access, info.owner);
    send_padded(ch[0], 7, 10);
    send_padded(ch[0], 8, BIG);
    send_padded(ch[2], 9, BIG);
    send_padded(ch[3], 10, BIG);
    gate_lift(&ready, 1);
    receive_padded(ch[1], 21, 10);
    receive_padded(ch[1], 22, BIG);
    gate_pass(&done);
    receive_padded(ch[3], 10, BIG);
    receive_padded(ch[2], 31, BIG);
    all_freed(me);
    for (int i = 0; i < 5; i++) must(xi_channel_free(ch[i]));
    must(xi_leave(me));
}

/* What an observer of another user is shown: all names, and the counters of what is his to read. */
static void bob_looks_on(void *unused) {
    (void)unused;
    xi_observer *o = NULL;
    xi_channel_info c[8];
    xi_interp_info in[8];
    must(xi_observe(LAB, &o));
    expect(xi_observer_uid(o) == alice.uid && strcmp(xi_observer_open_to(o), "61002,61003,@61050") == 0, "it is %u's, open to %s",
           xi_observer_uid(o), xi_observer_open_to(o));
    expect(xi_list_interps(o, in, 8) == 1 && in[0].uid == alice.uid && in[0].sent == 0, "her counters are shown");
    expect(xi_list_channels(o, c, 8) == 5, "not five channels");
    for (int i = 0; i < 5; i++) {
        bool his = strcmp(c[i].name, "to-bob") == 0 || strcmp(c[i].name, "all") == 0;
        expect(c[i].owner == alice.uid && c[i].shared_with_others, "%s is %u's", c[i].name, c[i].owner);
        expect((c[i].groups == 1) == his, "%s: %u groups are shown", c[i].name, c[i].groups);
        if (strcmp(c[i].name, "to-bob") == 0) expect(c[i].depth == 2 && strcmp(c[i].access, "61002:r") == 0, "%s", c[i].access);
        if (strcmp(c[i].name, "mine") == 0) expect(c[i].depth == 0 && !c[i].access[0], "%s", c[i].access);
    }
    xi_observer_free(o);
}

static void bob_uses_what_he_may(void *unused) {
    (void)unused;
    xi_interp *me = join_lab("bob");
    expect(strcmp(xi_namespace(me), LAB) == 0, "it is called %s", xi_namespace(me));
    must_not_open(me, "to-bob", 0, "XI_OPEN_RECV");
    must_not_open(me, "to-bob", XI_OPEN_SEND, "only receive");
    must_not_open(me, "from-bob", XI_OPEN_RECV, "only send");
    must_not_open(me, "group", XI_OPEN_RECV, "not open to user 61002");
    must_not_open(me, "mine", 0, "not open");
    xi_channel *in = open_for(me, "to-bob", XI_OPEN_RECV), *out = open_for(me, "from-bob", XI_OPEN_SEND);
    xi_msg m = XI_MSG_INIT;
    must_fail(XI_E_INVAL, xi_send_int(in, 1, XI_TRY));
    must_fail(XI_E_ACCESS, xi_close(in));
    must_fail(XI_E_INVAL, xi_recv(out, &m, XI_TRY));
    expect(xi_channel_shared(in) && xi_channel_shared(out), "what comes from Alice may be anything");
    receive_padded(in, 7, 10);
    receive_padded(in, 8, BIG);
    send_padded(out, 21, 10);
    send_padded(out, 22, BIG);
    all_freed(me);
    xi_channel *own = open_with(me, "bobs", NULL); /* his, in her namespace: she may not */
    expect(!xi_channel_shared(own), "a channel for Bob alone is shared");
    must_fail(XI_E_INVAL, xi_open(me, "x", &(xi_open_opts){.access = "61001"}, &own));
    must_fail(XI_E_ACCESS, xi_ref(me, 1));
    must(xi_channel_free(own));
    must(xi_channel_free(in));
    must(xi_channel_free(out));
    must(xi_leave(me));
}

static void dave_comes_by_his_group(void *unused) {
    (void)unused;
    xi_interp *me = join_lab("dave");
    must_not_open(me, "to-bob", XI_OPEN_RECV, "not open to user 61005");
    xi_channel *ch = open_for(me, "group", 0);
    receive_padded(ch, 9, BIG);
    send_padded(ch, 31, BIG);
    leave_with(me, ch);
}

static void mallory_may_not(void *unused) {
    (void)unused;
    xi_interp *me = NULL;
    xi_observer *o = NULL;
    for (int i = 0; i < 20; i++) { /* whichever of the two is faster, to send or to close */
        must_fail(XI_E_ACCESS, xi_join(&(xi_join_opts){.ns = LAB}, &me));
        expect(strstr(xi_error_text(XI_E_ACCESS), "not open to user 61004") != NULL, "%s", xi_error_text(XI_E_ACCESS));
    }
    must_fail(XI_E_ACCESS, xi_observe(LAB, &o));
    must_fail(XI_E_BROKER, xi_join(&(xi_join_opts){.ns = "61002/lab"}, &me));
    must_fail(XI_E_NOENT, xi_join(&(xi_join_opts){.ns = "no-such-user-here/lab"}, &me));
    must_fail(XI_E_NOENT, xi_observe("61002/lab", &o));
}

/* Alice's other namespace, which is not open: neither a socket to find, nor a way through her folder. */
static void bob_finds_no_way_into_a_private_one(void *unused) {
    (void)unused;
    xi_interp *me = NULL;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    must_fail(XI_E_BROKER, xi_join(&(xi_join_opts){.ns = "61001/closed"}, &me));
    snprintf(a.sun_path, sizeof a.sun_path, "%s/run-61001/closed.sock", place);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    expect(connect(fd, (struct sockaddr *)&a, sizeof a) == -1 && errno == EACCES, "connected to a private socket, or: %s",
           strerror(errno));
    close(fd);
}

static void alice_cannot_open_what_is_private(void *unused) {
    (void)unused;
    xi_interp *me = join_ns("closed", "alice", 0);
    xi_channel *ch = NULL;
    must_fail(XI_E_INVAL, xi_open(me, "jobs", &(xi_open_opts){.access = "61002:r"}, &ch));
    expect(strstr(xi_error_text(XI_E_INVAL), "--open-to") != NULL, "%s", xi_error_text(XI_E_INVAL));
    ch = open_queue(me, "jobs");
    expect(!xi_channel_shared(ch), "a private channel is shared");
    leave_with(me, ch);
}

/* ---- somebody has put a folder where Carol's should be */

static void mallory_squats(void *unused) {
    (void)unused;
    char dir[128];
    snprintf(dir, sizeof dir, "%s/xidata-open-61003", place);
    must_sys(mkdir(dir, 0711));
}

static void bob_does_not_believe_it(void *unused) {
    (void)unused;
    xi_interp *me = NULL;
    must_fail(XI_E_ACCESS, xi_join(&(xi_join_opts){.ns = "61003/lab"}, &me));
    expect(strstr(xi_error_text(XI_E_ACCESS), "not a folder of user 61003") != NULL, "%s", xi_error_text(XI_E_ACCESS));
}

static void squatted(void) {
    char said[512], dir[128];
    run_as(&mallory, mallory_squats, "mallory");
    pid_t broker = start_broker_as(&carol, "lab", "61002", said);
    expect(strncmp(said, "error", 5) == 0 && strstr(said, "another user's"), "a broker said \"%s\"", said);
    expect(reap(broker) != 0, "it went well");
    run_as(&bob, bob_does_not_believe_it, "bob");
    snprintf(dir, sizeof dir, "%s/xidata-open-61003", place);
    must_sys(rmdir(dir));
}

static void private_stays_closed(void) {
    char said[512];
    pid_t broker = start_broker_as(&alice, "closed", NULL, said);
    expect(strcmp(said, "ready") == 0, "%s", said);
    run_as(&alice, alice_cannot_open_what_is_private, "alice");
    run_as(&bob, bob_finds_no_way_into_a_private_one, "bob");
    stop_broker(broker);
}

static void everything(void *unused) {
    (void)unused;
    pid_t broker = open_lab("61002,#61003,@61050");
    ready = gate_new();
    done = gate_new();
    pid_t serving = spawn_as(&alice, alice_serves);
    gate_pass(&ready);
    run_as(&mallory, mallory_may_not, "mallory");
    run_as(&bob, bob_looks_on, "bob, looking on,");
    run_as(&bob, bob_uses_what_he_may, "bob");
    run_as(&dave, dave_comes_by_his_group, "dave");
    gate_lift(&done, 1);
    reap_ok(serving, "alice");
    private_stays_closed();
    squatted();
    stop_broker(broker);
}

int main(void) { return run_in_place(everything); }
