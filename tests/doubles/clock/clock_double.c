/* A TEST DOUBLE of a host's clock: named in /etc/ld.so.preload, every program that starts from then on sees the time that is
 * /etc/beta9-clock-double seconds away from the real one. A container has no clock of its own. Monotonic clocks are left alone.
 *
 * cc -shared -fPIC -o libclock-double.so clock_double.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset;

__attribute__((constructor)) static void read_offset(void)
{
    char text[32] = "";
    int handle = open("/etc/beta9-clock-double", O_RDONLY | O_CLOEXEC);
    if (handle >= 0) {
        if (read(handle, text, sizeof text - 1) > 0)
            offset = atol(text);
        close(handle);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
