/* Records what a process writes to the ledger's files, in the order in which it reaches the system, fsyncs among it.

   Built and preloaded by benchmarks/power_cuts.py. RECORDED_FOLDER is the folder that is watched, RECORDED_LOG the file
   that is written: for each operation a line "KIND OFFSET SIZE PATH\n" and, for a write, its SIZE bytes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static FILE *record;

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

/* Whether a path is in the folder, or the folder itself; SQLite rebuilds its -shm file by itself. */
static int watched(const char *path) {
    const char *folder = getenv("RECORDED_FOLDER");
    size_t size = folder ? strlen(folder) : 0;
    size_t length = strlen(path);
    if (!size || strncmp(path, folder, size) || (path[size] && path[size] != '/')) return 0;
    return length < 4 || strcmp(path + length - 4, "-shm");
}

static int path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return watched(path);
}

static void note(char kind, long long offset, size_t size, const char *path, const void *data) {
    if (!record) {
        record = fopen(getenv("RECORDED_LOG"), "ab");
        if (!record) abort();
    }
    fprintf(record, "%c %lld %zu %s\n", kind, offset, size, path);
    if (data) fwrite(data, 1, size, record);
    fflush(record);
}

/* One operation at a time, so that the record has the order in which they took effect. */
static ssize_t written(int file, const void *data, size_t size, off_t offset, int positioned) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    static ssize_t (*plain)(int, const void *, size_t);
    if (!plain) plain = dlsym(RTLD_NEXT, "write");
    char path[4096];
    if (!path_of(file, path, sizeof path)) return positioned ? real(file, data, size, offset) : plain(file, data, size);
    pthread_mutex_lock(&order);
    if (!positioned) offset = lseek(file, 0, SEEK_CUR);
    ssize_t done = positioned ? real(file, data, size, offset) : plain(file, data, size);
    if (done > 0) note('W', offset, done, path, data);
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset, 1); }
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset, 1); }
ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, 0, 0); }

static int cut_to(int file, off_t size) {
    REAL(int, "ftruncate64", int, off_t);
    char path[4096];
    if (!path_of(file, path, sizeof path)) return real(file, size);
    pthread_mutex_lock(&order);
    int done = real(file, size);
    if (!done) note('T', size, 0, path, NULL);
    pthread_mutex_unlock(&order);
    return done;
}

int ftruncate64(int file, off_t size) { return cut_to(file, size); }
int ftruncate(int file, off_t size) { return cut_to(file, size); }

static int synced(int file, const char *name) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    char path[4096];
    if (!path_of(file, path, sizeof path)) return real(file);
    pthread_mutex_lock(&order);
    int done = real(file);
    if (!done) note('S', 0, 0, path, NULL);
    pthread_mutex_unlock(&order);
    return done;
}

int fsync(int file) { return synced(file, "fsync"); }
int fdatasync(int file) { return synced(file, "fdatasync"); }

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (!watched(to)) return real(from, to);
    pthread_mutex_lock(&order);
    int done = real(from, to);
    if (!done) {
        note('R', 0, strlen(from), to, from);
    }
    pthread_mutex_unlock(&order);
    return done;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    if (!watched(path)) return real(path);
    pthread_mutex_lock(&order);
    int done = real(path);
    if (!done) note('U', 0, 0, path, NULL);
    pthread_mutex_unlock(&order);
    return done;
}
