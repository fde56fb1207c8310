// A disk that is slow or fails where and when a test says so: loaded before the C library into the server under test.
//
// The file named by FAULTS_DISK holds one line: "OPERATION WORD MILLISECONDS ERRNO". OPERATION is read or write, WORD a part of the
// path of the files that are meant; each such call takes so long and then fails with ERRNO, or goes on where that is 0. An empty file
// means a good disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int orders(char *operation, char *word, int *milliseconds, int *error) {
    const char *path = getenv("FAULTS_DISK");
    if (!path) return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    char line[256];
    ssize_t length = syscall(SYS_read, file, line, sizeof line - 1);
    syscall(SYS_close, file);
    if (length <= 0) return 0;
    line[length] = 0;
    return sscanf(line, "%15s %127s %d %d", operation, word, milliseconds, error) == 4;
}

// 1 where the call has to fail; errno is set.
static int meets(const char *operation, const char *path) {
    char meant[16], word[128];
    int milliseconds, error;
    if (!orders(meant, word, &milliseconds, &error) || strcmp(meant, operation) || !strstr(path, word)) return 0;
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&pause, NULL);
    errno = error;
    return error != 0;
}

static int meets_open(const char *operation, int file) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/') return 0;
    path[length] = 0;
    return meets(operation, path);
}

ssize_t write(int file, const void *bytes, size_t length) {
    return meets_open("write", file) ? -1 : syscall(SYS_write, file, bytes, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    return meets_open("write", file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
    return pwrite64(file, bytes, length, offset);
}

ssize_t pread64(int file, void *bytes, size_t length, off64_t offset) {
    return meets_open("read", file) ? -1 : syscall(SYS_pread64, file, bytes, length, offset);
}

ssize_t pread(int file, void *bytes, size_t length, off_t offset) {
    return pread64(file, bytes, length, offset);
}

int fsync(int file) {
    return meets_open("write", file) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    return meets_open("write", file) ? -1 : (int)syscall(SYS_fdatasync, file);
}

static int opens(int folder, const char *path, int flags, int mode) {
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && meets("write", path)) return -1;
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define MODE(flags)                                  \
    int mode = 0;                                    \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {         \
        va_list more;                                \
        va_start(more, flags);                       \
        mode = va_arg(more, int);                    \
        va_end(more);                                \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opens(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opens(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
