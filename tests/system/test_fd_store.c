/* SPDX-License-Identifier: MIT */
/*
 * Plays systemd: listens at $NOTIFY_SOCKET, keeps the descriptors that a broker
 * gives it, and hands them to the next one. The broker is killed with values
 * queued and an interpreter joined; among what the next one gets is rubbish. No
 * value is lost, the interpreter goes on, no id comes twice, and meanwhile nobody
 * else can become the broker. A manager that keeps nothing is noticed. And the
 * unit in the manual has what all of this needs.
 */
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "harness.h"

#define KEPT_MOST 64
#define BIG 200000
#define MANY 12

static struct manager {
    int socket;
    char path[64]; /* for $NOTIFY_SOCKET */
    struct sockaddr_un address;
    socklen_t length;
    bool keeps, ready, stopping;
    int count, barriers;
    struct {
        char name[128];
        int fd;
    } kept[KEPT_MOST];
} manager;

static int64_t *shared; /* the ids of interpreters */
static struct gate sent, again, went_on, done;
static char log_path[200];

/* ---- the manager */

static void manager_begin(bool keeps, bool abstract) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    manager = (struct manager){.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), .keeps = keeps};
    if (abstract)
        snprintf(manager.path, sizeof manager.path, "@xi-test-%d", (int)getpid());
    else
        snprintf(manager.path, sizeof manager.path, "%.48s/notify", getenv("XI_RUNTIME_DIR"));
    strcpy(a.sun_path, manager.path);
    if (abstract)
        a.sun_path[0] = 0;
    else
        (void)unlink(a.sun_path);
    manager.address = a;
    manager.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(manager.path) + !abstract);
    must_sys(bind(manager.socket, (struct sockaddr *)&a, manager.length));
}

/* As one that is busy: nobody can send it anything before it takes what has come. */
static void manager_clog(void) {
    for (ssize_t n = 0; n >= 0;) {
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        must_sys(fd);
        n = sendto(fd, "STATUS=", 7, MSG_DONTWAIT, (struct sockaddr *)&manager.address, manager.length);
        expect(n == 7 || errno == EAGAIN, "%s", strerror(errno));
        close(fd);
    }
}

static int find_kept(const char *name) {
    for (int i = 0; i < manager.count; i++)
        if (strcmp(manager.kept[i].name, name) == 0) return i;
    return -1;
}

static void keep_fd(const char *name, int fd) {
    expect(name[0] && strlen(name) < 128 && !strchr(name, ':'), "a name that no manager takes: \"%s\"", name);
    expect(find_kept(name) < 0, "%s is stored twice", name);
    expect(manager.count < KEPT_MOST, "too many");
    strcpy(manager.kept[manager.count].name, name);
    manager.kept[manager.count++].fd = fd;
}

static void forget_fd(const char *name) {
    for (int i; (i = find_kept(name)) >= 0;) {
        close(manager.kept[i].fd);
        manager.kept[i] = manager.kept[--manager.count];
    }
}

static void take_state(char *text, int fd) {
    const char *name = "stored", *line;
    bool keep = false, drop = false;
    for (char *rest = text; (line = strsep(&rest, "\n"));) {
        keep |= strcmp(line, "FDSTORE=1") == 0;
        drop |= strcmp(line, "FDSTOREREMOVE=1") == 0;
        manager.ready |= strcmp(line, "READY=1") == 0;
        manager.stopping |= strcmp(line, "STOPPING=1") == 0;
        manager.barriers += strcmp(line, "BARRIER=1") == 0;
        if (strncmp(line, "FDNAME=", 7) == 0) name = line + 7;
    }
    if (drop) forget_fd(name);
    if (keep && manager.keeps) {
        expect(fd >= 0, "nothing came with %s", name);
        keep_fd(name, fd);
    } else if (fd >= 0)
        close(fd);
}

/* Takes what has come. */
static void manager_take(void) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char text[1024];
    for (;;) {
        struct iovec iov = {text, sizeof text - 1};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg(manager.socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EAGAIN) return;
        must_sys(n);
        text[n] = 0;
        int fd = -1;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        if (c && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
        take_state(text, fd);
    }
}

/* Until `fd` can be read (-1: until the broker is ready). */
static void manage_until(int fd) {
    int64_t until = now_ns() + 20 * SECOND;
    while (fd >= 0 || !manager.ready) {
        struct pollfd p[2] = {{manager.socket, POLLIN, 0}, {fd, POLLIN, 0}};
        expect(now_ns() < until, "%s", fd >= 0 ? "nobody went on" : "the broker is not ready");
        must_sys(poll(p, 2, 1000));
        manager_take();
        if (p[1].revents) return;
    }
}

static void manage_pass(const struct gate *g) {
    manage_until(g->fd[0]);
    gate_pass(g);
}

/* The next broker of this service, with all that is kept from descriptor 3 on. */
static pid_t manager_start(void) {
    char pid_text[16], count[16], names[KEPT_MOST * 130] = "";
    manager.ready = manager.stopping = false;
    (void)unlink(log_path); /* that of the broker before */
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid != 0) return pid;
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    for (int i = 0; i < manager.count; i++) must_sys(manager.kept[i].fd = fcntl(manager.kept[i].fd, F_DUPFD, 200));
    for (int i = 0; i < manager.count; i++) {
        must_sys(dup2(manager.kept[i].fd, 3 + i));
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ":" : "", manager.kept[i].name);
    }
    close_range((unsigned)manager.count + 3, ~0u, 0);
    snprintf(pid_text, sizeof pid_text, "%d", (int)getpid());
    snprintf(count, sizeof count, "%d", manager.count);
    setenv("NOTIFY_SOCKET", manager.path, 1);
    setenv("SYSTEMD_EXEC_PID", pid_text, 1);
    if (manager.count) {
        setenv("LISTEN_PID", pid_text, 1);
        setenv("LISTEN_FDS", count, 1);
        setenv("LISTEN_FDNAMES", names, 1);
    }
    execl(getenv("XI_BROKER"), "xi-broker", "--open-to", "*", "--log", log_path, NULL);
    fail("cannot run %s: %s", getenv("XI_BROKER"), strerror(errno));
}

static char *read_text(const char *path) {
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    expect(f && text, "cannot read %s", path);
    expect(fread(text, 1, (1 << 20) - 1, f) > 0, "%s is empty", path);
    fclose(f);
    return text;
}

static bool logged_quietly(const char *words) {
    char *text = read_text(log_path);
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static bool logged(const char *words) {
    bool found = logged_quietly(words);
    if (!found) fprintf(stderr, "the log does not say \"%s\"\n", words);
    return found;
}

/* ---- the interpreters */

static void send_padded(xi_channel *ch, int64_t number, size_t padding) {
    static char buffer[BIG + 128];
    must(xi_send(ch, buffer, encode_padded(buffer, sizeof buffer, number, padding), 5 * SECOND));
}

static void sends(void *unused) {
    (void)unused;
    xi_interp *me = join_as("sender", 0);
    xi_channel *ch = open_queue(me, "q"), *other, *many[MANY];
    shared[0] = xi_id(me);
    for (int64_t i = 0; i < 10; i++) send_padded(ch, i, i % 2 ? BIG : 10);
    gate_lift(&sent, 1);
    gate_pass(&again);
    for (int i = 0; i < MANY; i++) { /* while the manager takes nothing */
        char name[32];
        snprintf(name, sizeof name, "many-%d", i);
        many[i] = open_queue(me, name);
        must(xi_send_int(many[i], i, XI_TRY));
    }
    gate_lift(&sent, 1);
    gate_pass(&again);
    for (int i = 0; i < MANY; i++) {
        xi_msg m = XI_MSG_INIT;
        must(xi_recv(many[i], &m, 10 * SECOND));
        expect(message_int(&m) == i, "%lld came, not %d", (long long)message_int(&m), i);
        xi_msg_release(&m);
        must(xi_channel_free(many[i]));
    }
    other = open_queue(me, "made afterwards"); /* which only a broker can do */
    for (int64_t i = 10; i < 20; i++) send_padded(ch, i, i % 2 ? BIG : 10);
    gate_lift(&went_on, 1);
    gate_pass(&done);
    must(xi_channel_free(other));
    leave_with(me, ch);
}

static void receives(void *unused) {
    (void)unused;
    xi_interp *me = join_as("receiver", 0);
    xi_channel *ch = open_queue(me, "q");
    expect(xi_id(me) > shared[0], "id %lld after %lld", (long long)xi_id(me), (long long)shared[0]);
    expect(broker_pid(me) == (pid_t)shared[1], "process %d is the broker, not the service's %d", (int)broker_pid(me), (int)shared[1]);
    for (int64_t i = 0; i < 20; i++) {
        xi_msg m = XI_MSG_INIT;
        must(xi_recv(ch, &m, 10 * SECOND));
        expect(message_int(&m) == i, "%lld came, not %lld", (long long)message_int(&m), (long long)i);
        xi_msg_release(&m);
    }
    leave_with(me, ch);
    gate_lift(&went_on, 1);
}

/* ---- the scenes */

static void named(char out[128], const char *what) { snprintf(out, 128, "xi-%s-%s", test_ns(), what); }

static void expect_kept(const char *what, bool kept) {
    char name[128];
    named(name, what);
    expect((find_kept(name) >= 0) == kept, "%s is %skept", name, kept ? "not " : "");
}

static void nobody_else_can_serve(void) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s.lock", getenv("XI_RUNTIME_DIR"), test_ns());
    int fd = open(path, O_RDWR | O_CLOEXEC);
    must_sys(fd);
    expect(flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK, "the lock went with the broker");
    close(fd);
}

/* What a store can hold that is no broker's, or was another's. */
static void add_rubbish(void) {
    char name[128];
    int pipes[2], whole = memfd_create("rubbish", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must_sys(pipe2(pipes, O_CLOEXEC));
    named(name, "0000abcd");
    keep_fd(name, memfd_create("rubbish", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    named(name, "0000abce");
    keep_fd(name, pipes[0]);
    must_sys(ftruncate(whole, 65536));
    must_sys(fcntl(whole, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    named(name, "0000abd0");
    keep_fd(name, whole);
    named(name, "00000001"); /* a sound one under another name */
    int sound = fcntl(manager.kept[find_kept(name)].fd, F_DUPFD_CLOEXEC, 3);
    named(name, "0000abd2");
    keep_fd(name, sound);
    keep_fd("xi-elsewhere-00000001", fcntl(sound, F_DUPFD_CLOEXEC, 3));
    keep_fd("some.socket", pipes[1]);
}

static void rubbish_is_refused(void) {
    manager_take();
    expect(logged("0000abcd\" that the service manager hands in is refused: it is not sealed"), "nothing about what is not sealed");
    expect(logged("0000abce\" that the service manager hands in is refused: it is not a memfd"), "nothing about the pipe");
    expect(logged("0000abd0\" that the service manager hands in is refused: it is not a xidata"), "nothing about the empty one");
    expect(logged("0000abd2\" that the service manager hands in is refused: it is another segment"), "nothing about the wrong name");
    expect(logged("\"xi-elsewhere-00000001\" that the service manager hands in is refused: its name"), "nothing about the other's");
    expect(logged("\"some.socket\" that the service manager hands in is refused: its name"), "nothing about the socket");
    for (const char *const *what = (const char *const[]){"0000abcd", "0000abce", "0000abd0", "0000abd2", NULL}; *what; what++)
        expect_kept(*what, false);
    expect(find_kept("xi-elsewhere-00000001") < 0, "the other namespace's is kept on");
    forget_fd("some.socket"); /* which is not a broker's to drop */
}

static void end_broker(pid_t broker) {
    int ended = (int)syscall(SYS_pidfd_open, broker, 0);
    must_sys(ended);
    must_sys(kill(broker, SIGTERM));
    manage_until(ended);
    close(ended);
    reap_ok(broker, "the broker");
    manager_take();
    expect(manager.stopping, "it did not say that it was about to end");
    for (int i = 0; i < manager.count; i++) fprintf(stderr, "still kept: %s\n", manager.kept[i].name);
    expect(manager.count == 0, "something is kept after an orderly end");
    close(manager.socket);
}

/* With values in the queue and an interpreter that stays. */
static void killed_and_started_again(int deaths) {
    manager_begin(true, deaths > 1);
    pid_t broker = manager_start();
    manage_until(-1);
    expect(manager.barriers == 1, "it was not tried whether the manager keeps anything");
    int64_t until = now_ns() + 30 * SECOND;
    pid_t sender = spawn(sends, NULL);
    manage_pass(&sent);
    manager_take();
    manager_clog();
    gate_lift(&again, 1);
    gate_pass(&sent); /* the broker goes on though the manager does not */
    expect(logged("the service manager takes nothing just now"), "nobody noticed");
    while (!logged_quietly("the service manager knows everything again")) {
        expect(now_ns() < until, "the broker tells nothing any more");
        manager_take();
        (void)poll(NULL, 0, 2); /* nothing says that the broker has tried again */
    }
    for (int i = 0; i < deaths; i++) {
        must_sys(kill(broker, SIGKILL));
        reap_signalled(broker, SIGKILL, "the broker");
        manager_take();
        for (const char *const *what = (const char *const[]){"lock", "socket", "open", "00000000", "00000001", NULL}; *what; what++)
            expect_kept(*what, true);
        nobody_else_can_serve();
        add_rubbish();
        shared[1] = broker = manager_start();
        manage_until(-1);
        rubbish_is_refused();
        expect(logged("adopted namespace"), "nothing was adopted");
    }
    gate_lift(&again, 1);
    manage_pass(&went_on);
    pid_t receiver = spawn(receives, NULL);
    manage_pass(&went_on);
    reap_ok(receiver, "the receiver");
    gate_lift(&done, 1);
    reap_ok(sender, "the sender");
    end_broker(broker);
}

/* Without its registry the rest is nothing; it is dropped, and the lock is another's meanwhile. */
static void a_part_is_not_adopted(void) {
    char name[128];
    manager_begin(true, true);
    pid_t broker = manager_start();
    manage_until(-1);
    must_sys(kill(broker, SIGKILL));
    reap_signalled(broker, SIGKILL, "the broker");
    manager_take();
    named(name, "00000000");
    forget_fd(name);
    named(name, "lock");
    int lock = find_kept(name);
    close(manager.kept[lock].fd);
    must_sys(manager.kept[lock].fd = open("/dev/null", O_RDWR | O_CLOEXEC));
    broker = manager_start();
    manage_until(-1);
    manager_take();
    expect(logged("dropped 1 segment that were kept") || logged("dropped 1 segment that was kept"), "nothing was dropped");
    expect(logged("the lock that the service manager hands in is refused"), "/dev/null passed for a lock");
    nobody_else_can_serve();
    end_broker(broker);
}

/* There has to be a keeper then: the broker is not the process that was started. */
static void a_manager_that_keeps_nothing(void) {
    manager_begin(false, false);
    pid_t service = manager_start();
    manage_until(-1);
    expect(logged("the service manager keeps no descriptors"), "it was not noticed");
    xi_observer *o = NULL;
    must(xi_observe(NULL, &o));
    expect(xi_observer_broker_pid(o) != service, "nobody keeps anything");
    xi_observer_free(o);
    end_broker(service);
}

/* ---- the unit in the manual */

static void unit_is_right(void) {
    static const char *const needed[] = {"Type=notify\n", "NotifyAccess=main\n", "Restart=always\n", "FileDescriptorStoreMax=", "ExecStart="};
    char path[300], help[16384] = "", command[300], option[64];
    snprintf(path, sizeof path, "%s/docs/man/xi-broker.1", getenv("XI_SOURCE"));
    char *text = read_text(path), *unit = strstr(text, "[Service]");
    expect(unit != NULL, "the manual has no unit");
    for (char *from = unit, *to = unit; (*to = *from); from++) /* as it is printed */
        if (*from != '\\' || from[1] != '-') to++;
    char *end = strstr(unit, ".fi");
    expect(end != NULL, "the unit has no end");
    *end = 0;
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) expect(strstr(unit, needed[i]) != NULL, "no %s", needed[i]);
    expect(atol(strstr(unit, "FileDescriptorStoreMax=") + 23) > 1000, "it keeps too few");
    snprintf(command, sizeof command, "'%s' --help", getenv("XI_BROKER"));
    FILE *f = popen(command, "r");
    expect(f && fread(help, 1, sizeof help - 1, f) > 0 && pclose(f) == 0, "no help");
    char *line = strstr(unit, "ExecStart=");
    expect(strstr(line, "/xi-broker ") != NULL, "it starts something else");
    line[strcspn(line, "\n")] = 0;
    int options = 0;
    for (char *at = line; (at = strstr(at, " --")); at += 3, options++) {
        snprintf(option, sizeof option, "%.*s ", (int)strcspn(at + 1, " =\n") < 60 ? (int)strcspn(at + 1, " =\n") : 60, at + 1);
        expect(strstr(help, option) != NULL, "there is no option %s", option);
    }
    expect(options > 0 && (strstr(line, "--memfd") || strstr(line, "--open-to")), "its segments have names, and nothing to be kept");
    free(text);
}

int main(void) {
    shared = shared_memory(4096);
    snprintf(log_path, sizeof log_path, "%s/log", getenv("XI_RUNTIME_DIR"));
    setenv("XI_OPEN_DIR", getenv("XI_RUNTIME_DIR"), 1);
    sent = gate_new();
    again = gate_new();
    went_on = gate_new();
    done = gate_new();
    unit_is_right();
    killed_and_started_again(1);
    killed_and_started_again(3);
    a_part_is_not_adopted();
    a_manager_that_keeps_nothing();
    return 0;
}
