/* A file layer that fails on request, for tests. Loaded before libc (LD_PRELOAD), it counts the file operations of a
 * process below one folder. At the n-th operation it kills the process, cuts a write in half, or returns an error. It
 * can also simulate a full disk of a given size. Until it is armed, it only forwards each call to libc.
 *
 *   faults_arm(folder, n, action, budget)   n: operation to fail, 0 for none; budget: bytes that fit, -1 for no limit
 *   action > 0 is the errno to return; 0 kills before the operation; -1 kills in the middle of a write
 *   faults_count()                          operations since faults_arm()
 *   faults_kind(i)                          first letter of operation i: create, write, sync, rename, unlink, mkdir
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 100000
#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static char root[PATH_MAX];
static long fail_at, count, budget = -1;
static int action;
static char kinds[MOST];

void faults_arm(const char *folder, long n, int what, long bytes) {
    strncpy(root, folder, sizeof root - 1);
    fail_at = n, action = what, budget = bytes, count = 0;
}
long faults_count(void) { return count; }
int faults_kind(long i) { return i >= 0 && i < count && i < MOST ? kinds[i] : 0; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int below(const char *path) { return root[0] && path && !strncmp(path, root, strlen(root)); }

/* Return 1 if a path, which may be relative to an open folder, is below the watched folder. */
static int below_at(int dir, const char *path) {
    char link[64], full[PATH_MAX];
    if (!root[0] || !path) return 0;
    if (path[0] == '/' || dir == AT_FDCWD) return below(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(link, full, sizeof full - 1);
    if (n < 0) return 0;
    full[n] = 0;
    return below(full);
}

/* Count an operation and return the errno to fail it with, or 0. To cut a write in half, set *torn for the caller. */
static int step(char kind, int *torn) {
    if (count < MOST) kinds[count] = kind;
    count++;
    if (torn) *torn = 0;
    if (!fail_at || count != fail_at) return 0;
    if (action > 0) return action;
    if (action < 0 && torn) { *torn = 1; return 0; }
    die();
    return 0;
}

static int watched(int fd) {
    if (!root[0] || fd <= 2) return 0;
    return below_at(fd, "");
}

#define OR_FAIL(kind) do { int e = step(kind, NULL); if (e) { errno = e; return -1; } } while (0)
#define OR_FULL() do { if (budget == 0) { errno = ENOSPC; return -1; } } while (0)

static ssize_t limited(size_t n) { return budget >= 0 && (long)n > budget ? budget : (ssize_t)n; }

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    if (!n || !watched(fd)) return real(fd, data, n);
    int torn;
    OR_FULL();
    int e = step('w', &torn);
    if (e) { errno = e; return -1; }
    if (torn) { real(fd, data, n / 2); die(); }
    ssize_t done = real(fd, data, limited(n));
    if (budget > 0 && done > 0) budget -= done;
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    if (!n || !watched(fd)) return real(fd, data, n, at);
    int torn;
    OR_FULL();
    int e = step('w', &torn);
    if (e) { errno = e; return -1; }
    if (torn) { real(fd, data, n / 2, at); die(); }
    ssize_t done = real(fd, data, limited(n), at);
    if (budget > 0 && done > 0) budget -= done;
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (!watched(fd)) return real(fd, parts, n);
    return n ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0; /* a short write: callers write the rest */
}

static int opened(int dir, const char *path, int flags) {
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return 0;
    if (!below_at(dir, path)) return 0;
    OR_FULL();
    OR_FAIL('c');
    return 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return opened(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode); }
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(name); va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return opened(dir, path, flags) ? -1 : real(dir, path, flags, mode); }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int fsync(int fd) { REAL(fsync); if (watched(fd)) OR_FAIL('s'); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); if (watched(fd)) OR_FAIL('s'); return real(fd); }

int rename(const char *from, const char *to) { REAL(rename); if (below(to)) OR_FAIL('r'); return real(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    if (below_at(b, to)) OR_FAIL('r');
    return real(a, from, b, to);
}
int unlink(const char *path) { REAL(unlink); if (below(path)) OR_FAIL('u'); return real(path); }
int rmdir(const char *path) { REAL(rmdir); if (below(path)) OR_FAIL('u'); return real(path); }
int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    if (below_at(dir, path)) OR_FAIL('u');
    return real(dir, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (below(path)) { OR_FULL(); OR_FAIL('m'); }
    return real(path, mode);
}
