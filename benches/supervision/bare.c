/* The physical limits: the same child without a supervisor, by vfork and exec, pidfd and kill.
 *
 *   bare spawn CHILD FIFO N     from before vfork to the child's first instruction, N times
 *   bare asked CHILD FIFO N     the same from before another process is asked for it over a socket
 *   bare wake CHILD FIFO N      from kill -9 over the pidfd's wake to the next one's first
 *   bare many CHILD FIFO N      N children up; then all asked to end, and waited for
 *
 * Prints nanoseconds, one number a line; `many` prints two.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *child, *fifo;
static int in;

struct said {
    unsigned long at;
    unsigned pid, number;
};

static unsigned long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static pid_t spawn(void)
{
    char *argv[] = {child, fifo, "0", NULL};
    char *env[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(child, argv, env);
        _exit(127);
    }
    return pid;
}

static struct said hear(void)
{
    struct said said;
    if (read(in, &said, sizeof said) != sizeof said) exit(1);
    return said;
}

static void end(pid_t pid, int signal)
{
    kill(pid, signal);
    waitpid(pid, NULL, 0);
}

/* Starts a child for each byte, ends it for the next, and says when that is done. */
static void serve(int socket)
{
    char byte;
    while (read(socket, &byte, 1) == 1) {
        pid_t pid = spawn();
        if (read(socket, &byte, 1) != 1) break;
        end(pid, SIGKILL);
        if (write(socket, &byte, 1) != 1) break;
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) return 64;
    child = argv[2];
    fifo = argv[3];
    int n = atoi(argv[4]);
    in = open(fifo, O_RDWR | O_CLOEXEC);
    if (strcmp(argv[1], "spawn") == 0) {
        for (int i = 0; i < n; i++) {
            unsigned long begin = now();
            pid_t pid = spawn();
            printf("%lu\n", hear().at - begin);
            end(pid, SIGKILL);
        }
    } else if (strcmp(argv[1], "asked") == 0) {
        int pair[2];
        char byte = 0;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 1;
        pid_t server = fork();
        if (server < 0) return 1;
        if (server == 0) {
            close(pair[0]);
            serve(pair[1]);
            _exit(0);
        }
        close(pair[1]);
        for (int i = 0; i < n; i++) {
            unsigned long begin = now();
            if (write(pair[0], &byte, 1) != 1) return 1;
            printf("%lu\n", hear().at - begin);
            if (write(pair[0], &byte, 1) != 1 || read(pair[0], &byte, 1) != 1) return 1;
        }
        close(pair[0]);
        waitpid(server, NULL, 0);
    } else if (strcmp(argv[1], "wake") == 0) {
        pid_t pid = spawn();
        hear();
        for (int i = 0; i < n; i++) {
            int fd = syscall(SYS_pidfd_open, pid, 0);
            struct pollfd polled = {fd, POLLIN, 0};
            unsigned long begin = now();
            kill(pid, SIGKILL);
            poll(&polled, 1, -1);
            waitpid(pid, NULL, 0);
            pid = spawn();
            printf("%lu\n", hear().at - begin);
            close(fd);
        }
        end(pid, SIGKILL);
    } else {
        pid_t *all = malloc(n * sizeof *all);
        unsigned long begin = now(), last = 0;
        int heard = 0;
        for (int i = 0; i < n; i++) {
            all[i] = spawn();
            /* The fifo holds 4096 of them. */
            struct pollfd polled = {in, POLLIN, 0};
            while (poll(&polled, 1, 0) > 0) last = hear().at, heard++;
        }
        while (heard < n) last = hear().at, heard++;
        printf("%lu\n", last - begin);
        begin = now();
        for (int i = 0; i < n; i++) kill(all[i], SIGTERM);
        for (int i = 0; i < n; i++) waitpid(all[i], NULL, 0);
        printf("%lu\n", now() - begin);
    }
    return 0;
}
