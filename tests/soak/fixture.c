/* What the soak has run. It never asks the daemon anything: it tells the harness over a datagram
 * socket that it was born, and tells on a twin (the lock of its instance is held) and on a port
 * that is not free. With it goes the pid of the main process.
 *
 *   fixture TOKEN INSTANCE MODE [NUMBER [NUMBER]]
 *
 * stay; deaf (takes no hint to end); slow MS (ends so long after the hint); fork (leaves one that
 * has a session of its own and another parent); serve PORT; end MS CODE; child PID (what that PID
 * leaves).
 * LOCKS and SOCKET are given when it is compiled, and so is ADDRESS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char **words;
static int patience;

static void tell(const char *what)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char text[256];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strncpy(to.sun_path, SOCKET, sizeof to.sun_path - 1);
    int of = getpid();
    if (strcmp(what, "child") == 0) of = atoi(words[4]);
    int length = snprintf(text, sizeof text, "%s %s %d", what, words[2], of);
    /* The harness may be gone; then there is nobody to tell. */
    sendto(fd, text, length, 0, (struct sockaddr *)&to, sizeof to);
    close(fd);
}

static void nap(int ms)
{
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {}
}

static void linger(int signal)
{
    (void)signal;
    nap(patience);
    _exit(0);
}

/* Held, by whoever inherits it, until nothing is left of this run. */
static void take_lock(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", LOCKS, words[2]);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        tell("unknown");
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        tell("twin");
    }
}

static void leave_a_child(void)
{
    char main_pid[16];
    snprintf(main_pid, sizeof main_pid, "%d", getpid());
    pid_t middle = fork();
    if (middle == 0) {
        if (fork() == 0) {
            char *argv[] = {words[0], words[1], words[2], "child", main_pid, NULL};
            setsid();
            execv("/proc/self/exe", argv);
        }
        _exit(0);
    }
    waitpid(middle, NULL, 0);
}

static void serve(int port)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ADDRESS, &at.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 64) < 0) {
        tell("port-taken");
    }
    char sick[512];
    snprintf(sick, sizeof sick, "%s/%s.sick", LOCKS, words[2]);
    tell("main");
    for (;;) {
        int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        char request[1024], reply[256];
        if (peer < 0) continue;
        recv(peer, request, sizeof request, 0);
        int length = snprintf(reply, sizeof reply,
            "HTTP/1.0 %s\r\nConnection: close\r\n\r\n%s %d\n",
            access(sick, F_OK) == 0 ? "503 Sick" : "200 OK", words[2], getpid());
        send(peer, reply, length, MSG_NOSIGNAL);
        close(peer);
    }
}

int main(int argc, char **argv)
{
    words = argv;
    const char *mode = argc > 3 ? argv[3] : "";
    int first = argc > 4 ? atoi(argv[4]) : 0, second = argc > 5 ? atoi(argv[5]) : 0;
    signal(SIGUSR1, SIG_IGN);
    if (strcmp(mode, "child") == 0) {
        tell("child");
        for (;;) pause();
    }
    take_lock();
    /* A sick one is sick until its next run. */
    char sick[512];
    snprintf(sick, sizeof sick, "%s/%s.sick", LOCKS, words[2]);
    unlink(sick);
    printf("%s runs\n", argv[2]);
    fflush(stdout);
    if (strcmp(mode, "deaf") == 0) {
        int deaf_to[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
        for (int i = 0; i < 4; i++) signal(deaf_to[i], SIG_IGN);
    } else if (strcmp(mode, "slow") == 0) {
        int heard[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
        patience = first;
        for (int i = 0; i < 4; i++) signal(heard[i], linger);
    } else if (strcmp(mode, "fork") == 0) {
        leave_a_child();
    } else if (strcmp(mode, "serve") == 0) {
        serve(first);
    } else if (strcmp(mode, "end") == 0) {
        tell("main");
        nap(first);
        return second;
    }
    tell("main");
    for (;;) pause();
}
