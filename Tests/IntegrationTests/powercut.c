// What a power cut would leave of a folder: preloaded into a process, it keeps beside the folder what is surely on the
// disk. A file's bytes are, as of its last fdatasync or fsync; a name is, as of the last fsync of its folder.
//
//   POWERCUT_ROOT    the folder that is watched, an absolute path without links
//   POWERCUT_SHADOW  a folder of the same file system:
//     content/INODE    bytes of a file as of its last sync
//     names/INODE      the names of a folder as of its last sync, "INODE f|d NAME" a line
//     held/INODE       files that lost their name, so that their inode is not given to another file meanwhile
//     last             the call that was about to happen when POWERCUT_AT struck
//   POWERCUT_AT      before the so-manieth call that changes something under the folder the process is killed; 0: never
//   POWERCUT_SHORT   1: every third write writes a half, every seventh is interrupted before it writes anything
//
// What is not here (mmap, writev, link, O_DIRECT) the watched program does not use. Nothing is taken away while the
// process runs: what it wrote can be read, as from the page cache. powercut.py makes the folder after the cut.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *root, *shadow;
static size_t root_length;
static long cut_at;
static int is_short;
static atomic_long calls;
static atomic_long writes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, off_t, off_t);

__attribute__((constructor)) static void begin(void) {
  real_pwrite = dlsym(RTLD_NEXT, "pwrite");
  real_write = dlsym(RTLD_NEXT, "write");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_rename = dlsym(RTLD_NEXT, "rename");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
  real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate");
  shadow = getenv("POWERCUT_SHADOW");
  const char *at = getenv("POWERCUT_AT"), *half = getenv("POWERCUT_SHORT");
  cut_at = at ? atol(at) : 0;
  is_short = half && *half == '1';
  const char *folder = getenv("POWERCUT_ROOT");
  if (folder && shadow) {
    root_length = strlen(folder);
    root = folder;
  }
}

static int is_inside(const char *path) {
  return root && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

// The path of a descriptor if it is a file or folder that is watched.
static int watched(int fd, char *path) {
  struct stat status;
  char link[64];
  if (!root || fstat(fd, &status) != 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_inside(path);
}

// The process dies here if its time has come.
static void before(const char *call, const char *path) {
  if (!cut_at || atomic_fetch_add(&calls, 1) + 1 != cut_at) return;
  char name[PATH_MAX];
  snprintf(name, sizeof name, "%s/last", shadow);
  FILE *file = fopen(name, "w");
  if (file) {
    fprintf(file, "%s %s\n", call, path);
    fclose(file);
  }
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void copy(int fd, const struct stat *status) {
  static char buffer[1 << 20];
  char name[PATH_MAX], link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(name, sizeof name, "%s/content/%ju", shadow, (uintmax_t)status->st_ino);
  int from = open(link, O_RDONLY | O_CLOEXEC), to = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (from >= 0 && to >= 0) {
    off_t place = 0;
    ssize_t count;
    while ((count = pread(from, buffer, sizeof buffer, place)) > 0) {
      for (ssize_t done = 0; done < count;) {
        ssize_t part = real_pwrite(to, buffer + done, count - done, place + done);
        if (part <= 0) abort();
        done += part;
      }
      place += count;
    }
    if (real_ftruncate(to, place) != 0) abort();
  }
  if (from >= 0) close(from);
  if (to >= 0) close(to);
}

static void list(int fd, const struct stat *status) {
  char name[PATH_MAX], new[PATH_MAX], link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(name, sizeof name, "%s/names/%ju", shadow, (uintmax_t)status->st_ino);
  snprintf(new, sizeof new, "%s/names/%ju.new", shadow, (uintmax_t)status->st_ino);
  DIR *folder = opendir(link);
  FILE *file = fopen(new, "w");
  if (!folder || !file) abort();
  for (struct dirent *entry; (entry = readdir(folder));) {
    struct stat each;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (fstatat(dirfd(folder), entry->d_name, &each, AT_SYMLINK_NOFOLLOW) != 0) continue;
    fprintf(file, "%ju %c %s\n", (uintmax_t)each.st_ino, S_ISDIR(each.st_mode) ? 'd' : 'f', entry->d_name);
  }
  fclose(file);
  closedir(folder);
  if (real_rename(new, name) != 0) abort();
}

// A file loses its name: it keeps its inode.
static void hold(const char *path) {
  struct stat status;
  char name[PATH_MAX];
  if (lstat(path, &status) != 0 || !S_ISREG(status.st_mode)) return;
  snprintf(name, sizeof name, "%s/held/%ju", shadow, (uintmax_t)status.st_ino);
  if (link(path, name) != 0 && errno != EEXIST) abort();
}

static int sync_with(int (*real)(int), const char *call, int fd) {
  char path[PATH_MAX];
  struct stat status;
  if (!watched(fd, path)) return real(fd);
  before(call, path);
  int result = real(fd);
  if (result != 0 || fstat(fd, &status) != 0) return result;
  pthread_mutex_lock(&mutex);
  if (S_ISDIR(status.st_mode)) list(fd, &status);
  else copy(fd, &status);
  pthread_mutex_unlock(&mutex);
  errno = 0;
  return 0;
}

int fdatasync(int fd) { return sync_with(real_fdatasync, "fdatasync", fd); }
int fsync(int fd) { return sync_with(real_fsync, "fsync", fd); }

// How much of a write happens now: all, a half, or nothing (interrupted).
static size_t share(size_t count) {
  if (!is_short) return count;
  long number = atomic_fetch_add(&writes, 1);
  return number % 7 == 6 ? 0 : number % 3 == 2 && count > 1 ? count / 2 : count;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t place) {
  char path[PATH_MAX];
  if (!watched(fd, path)) return real_pwrite(fd, bytes, count, place);
  before("pwrite", path);
  size_t part = share(count);
  if (part == 0 && count > 0) {
    errno = EINTR;
    return -1;
  }
  return real_pwrite(fd, bytes, part, place);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t place) { return pwrite(fd, bytes, count, place); }

ssize_t write(int fd, const void *bytes, size_t count) {
  char path[PATH_MAX];
  // Before the constructor ran nothing is watched.
  if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
  if (!watched(fd, path)) return real_write(fd, bytes, count);
  before("write", path);
  size_t part = share(count);
  if (part == 0 && count > 0) {
    errno = EINTR;
    return -1;
  }
  return real_write(fd, bytes, part);
}

int rename(const char *from, const char *to) {
  if (!is_inside(to) && !is_inside(from)) return real_rename(from, to);
  before("rename", from);
  hold(to);
  return real_rename(from, to);
}

int unlink(const char *path) {
  if (!is_inside(path)) return real_unlink(path);
  before("unlink", path);
  hold(path);
  return real_unlink(path);
}

int ftruncate(int fd, off_t length) {
  char path[PATH_MAX];
  if (watched(fd, path)) before("ftruncate", path);
  return real_ftruncate(fd, length);
}

int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int posix_fallocate(int fd, off_t place, off_t length) {
  char path[PATH_MAX];
  if (watched(fd, path)) before("posix_fallocate", path);
  return real_fallocate(fd, place, length);
}

int posix_fallocate64(int fd, off_t place, off_t length) { return posix_fallocate(fd, place, length); }
