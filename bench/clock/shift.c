// This is preloaded into the PostgreSQL servers of chaos. Their wall clock is then ahead of the machine's by as many seconds as chaos writes
// into a file, which is memory that they share; all other clocks stay as they are. Nothing here allocates or locks: PostgreSQL asks for the
// time in signal handlers too.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *shift;
static int (*machine)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
	if (shift != NULL)
		return;
	machine = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	const char *name = getenv("RANGEFINDER_CHAOS_CLOCK");
	int fd = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
	void *mem = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
	if (machine == NULL || mem == MAP_FAILED) {
		perror("RANGEFINDER_CHAOS_CLOCK names no file that can be mapped");
		abort();
	}
	close(fd);
	shift = mem;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	begin(); // another library's constructor may ask first
	int failed = machine(id, t);
	if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += __atomic_load_n(shift, __ATOMIC_RELAXED);
	return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	struct timespec now;
	if (zone != NULL)
		*(struct timezone *)zone = (struct timezone){0};
	if (clock_gettime(CLOCK_REALTIME, &now) == 0)
		*t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *t) {
	struct timespec now = {0};
	clock_gettime(CLOCK_REALTIME, &now);
	if (t != NULL)
		*t = now.tv_sec;
	return now.tv_sec;
}
