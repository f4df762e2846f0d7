/* A disk that fails where a test says: a library for LD_PRELOAD on Linux with glibc.
 *
 * It stands between a program and the calls that read and change files below certain folders, and can write each of
 * them down, end or stop the process before or after one of them, or make them fail. Everything else passes through
 * untouched. tests/common/disk.rs compiles it and documents the trace. Steered by the environment:
 *
 *   FAULTY_ROOTS      the folders, separated by ':'; without it nothing happens
 *   FAULTY_TRACE      a file to which every call is appended; several processes may share it, and the order of its
 *                     records is the order of the calls
 *   FAULTY_DATA=1     written bytes are part of the trace
 *   FAULTY_RUN        a label that is repeated in every record
 *   FAULTY_POINT      "KINDS NTH PART": the NTH (from 1) call of one of the KINDS (separated by ','; '*': any that
 *                     changes something) on a path that has PART in it (empty: any)
 *   FAULTY_DO         what happens there: kill-before, kill-after, stop-before, stop-after, fail ERRNO (instead of the
 *                     call), lie ERRNO (it is done, and reported as failed), short (half of the bytes are written)
 *   FAULTY_LASTS=1    "fail", "lie" and "short" go on happening from there on
 *   FAULTY_NO_SYNC=1  nothing is really synced, which a killed process does not notice; saves time
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 4096, ROOTS = 8 };

enum action { NOTHING, KILL_BEFORE, KILL_AFTER, STOP_BEFORE, STOP_AFTER, FAIL, LIE, SHORT };

static char *roots[ROOTS];
static int root_count;
static char *file_of[FDS]; /* the path behind a descriptor, if it is watched */
static char folder_of[FDS];
static int trace = -1, with_data, no_sync, lasts, fault_errno;
static const char *run = "";
static enum action action = NOTHING;
static char kinds[256], part[PATH_MAX];
static long nth, seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

static enum action action_of(const char *text) {
  static const struct {
    const char *name;
    enum action action;
  } known[] = {{"kill-before", KILL_BEFORE}, {"kill-after", KILL_AFTER}, {"stop-before", STOP_BEFORE},
               {"stop-after", STOP_AFTER},   {"fail ", FAIL},            {"lie ", LIE},
               {"short", SHORT}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t length = strlen(known[i].name);
    if (strncmp(text, known[i].name, length) == 0) {
      if (text[length]) fault_errno = atoi(text + length);
      return known[i].action;
    }
  }
  fprintf(stderr, "faulty disk: FAULTY_DO is not understood: %s\n", text);
  _exit(99);
}

__attribute__((constructor)) static void begin(void) {
  const char *text = variable("FAULTY_ROOTS");
  if (!text) return;
  char *list = strdup(text), *rest = list, *folder;
  while ((folder = strsep(&rest, ":")) && root_count < ROOTS) roots[root_count++] = folder;
  if ((text = variable("FAULTY_RUN"))) run = strdup(text);
  with_data = variable("FAULTY_DATA") != NULL;
  no_sync = variable("FAULTY_NO_SYNC") != NULL;
  lasts = variable("FAULTY_LASTS") != NULL;
  if ((text = variable("FAULTY_TRACE"))) {
    int fd = syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    /* Out of the way of descriptors that the program counts on. */
    trace = fd < 0 ? -1 : (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
    if (trace < 0) trace = fd; else syscall(SYS_close, fd);
    if (trace < 0) {
      fprintf(stderr, "faulty disk: FAULTY_TRACE cannot be opened\n");
      _exit(99);
    }
  }
  if ((text = variable("FAULTY_POINT"))) {
    int at = 0;
    if (sscanf(text, "%255s %ld %n", kinds, &nth, &at) < 2) {
      fprintf(stderr, "faulty disk: FAULTY_POINT is not understood: %s\n", text);
      _exit(99);
    }
    snprintf(part, sizeof part, "%s", text + at);
    action = action_of(variable("FAULTY_DO") ? variable("FAULTY_DO") : "");
  }
}

static int is_below(const char *path) {
  for (int i = 0; i < root_count; i++) {
    size_t length = strlen(roots[i]);
    if (strncmp(path, roots[i], length) == 0 && (path[length] == 0 || path[length] == '/')) return 1;
  }
  return 0;
}

/* The absolute path of PATH, seen from the folder FROM; NULL if it is not watched. */
static const char *watched(int from, const char *path, char *buffer) {
  if (!root_count || !path) return NULL;
  if (path[0] == '/') return is_below(path) ? path : NULL;
  char folder[PATH_MAX], link[64];
  if (from == AT_FDCWD) {
    if (!getcwd(folder, sizeof folder)) return NULL;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", from);
    ssize_t length = readlink(link, folder, sizeof folder - 1);
    if (length <= 0) return NULL;
    folder[length] = 0;
  }
  if (snprintf(buffer, PATH_MAX, "%s/%s", folder, path) >= PATH_MAX) return NULL;
  return is_below(buffer) ? buffer : NULL;
}

static const char *path_of(int fd) { return fd >= 0 && fd < FDS ? file_of[fd] : NULL; }

static int is_kind(const char *kind) {
  if (kinds[0] == '*') return strcmp(kind, "open") && strcmp(kind, "read") && strcmp(kind, "say");
  size_t length = strlen(kind);
  for (const char *at = kinds; at; at = strchr(at, ',')) {
    at += *at == ',';
    if (strncmp(at, kind, length) == 0 && (at[length] == 0 || at[length] == ',')) return 1;
  }
  return 0;
}

/* One call, between enter() and leave(). */
struct call {
  const char *kind, *path, *other;
  const void *data;
  long long offset;
  size_t length;
  enum action action;
};

static void put(const void *bytes, size_t length) {
  const char *at = bytes;
  while (length) {
    ssize_t done = syscall(SYS_write, trace, at, length);
    if (done <= 0) _exit(98);
    at += done;
    length -= done;
  }
}

/* run, process, kind, result, fault, offset, bytes that follow, path, other path; then the bytes. */
static void record(const struct call *call, long result, const char *fault) {
  if (trace < 0) return;
  char line[2 * PATH_MAX + 256];
  size_t bytes = with_data && call->data && result > 0 ? (size_t)result : 0;
  int length = snprintf(line, sizeof line, "%s\t%d\t%s\t%ld\t%s\t%lld\t%zu\t%s\t%s\n", run, (int)getpid(), call->kind,
                        result, fault, call->offset, bytes, call->path, call->other ? call->other : "");
  put(line, length);
  if (bytes) put(call->data, bytes);
}

static void unlock(void) {
  if (trace >= 0) flock(trace, LOCK_UN);
  pthread_mutex_unlock(&lock);
}

/* From here to leave() nobody else makes a watched call. Nonzero: the call is not to be made, and errno is set. */
static int enter(struct call *call) {
  pthread_mutex_lock(&lock);
  if (trace >= 0) flock(trace, LOCK_EX);
  call->action = NOTHING;
  if (action != NOTHING && is_kind(call->kind) &&
      (!*part || strstr(call->path, part) || (call->other && strstr(call->other, part)))) {
    seen++;
    if (seen == nth || (lasts && seen > nth)) call->action = action;
  }
  switch (call->action) {
  case KILL_BEFORE:
    record(call, 0, "kill-before");
    kill(getpid(), SIGKILL);
    for (;;) pause();
  case STOP_BEFORE:
    record(call, 0, "stop-before");
    unlock();
    raise(SIGSTOP);
    pthread_mutex_lock(&lock);
    if (trace >= 0) flock(trace, LOCK_EX);
    return 0;
  case FAIL:
    record(call, -fault_errno, "fail");
    unlock();
    errno = fault_errno;
    return 1;
  default:
    return 0;
  }
}

static long leave(struct call *call, long result) {
  int error = errno;
  switch (call->action) {
  case KILL_AFTER:
    record(call, result, "kill-after");
    kill(getpid(), SIGKILL);
    for (;;) pause();
  case STOP_AFTER:
    record(call, result, "stop-after");
    unlock();
    raise(SIGSTOP);
    break;
  case LIE:
    record(call, result, "lie");
    unlock();
    error = fault_errno;
    result = -1;
    break;
  case SHORT:
    record(call, result, "short");
    unlock();
    break;
  default:
    record(call, result < 0 ? -(long)error : result, "");
    unlock();
  }
  errno = error;
  return result;
}

static void remember(int fd, const char *path, int folder) {
  free(file_of[fd]);
  file_of[fd] = strdup(path);
  folder_of[fd] = folder;
}

static int opened(int from, const char *path, int flags, mode_t mode, int (*real)(int, const char *, int, ...)) {
  char buffer[PATH_MAX];
  const char *whole = watched(from, path, buffer);
  if (!whole) return real(from, path, flags, mode);
  struct call call = {.kind = flags & O_CREAT ? "create" : "open", .path = whole};
  if (enter(&call)) return -1;
  int fd = real(from, path, flags, mode), error = errno;
  struct stat meta;
  if (fd >= 0 && fd < FDS) remember(fd, whole, fstat(fd, &meta) == 0 && S_ISDIR(meta.st_mode));
  errno = error;
  /* A successful lie would leave the descriptor open: no kernel does that. */
  if (call.action == LIE && fd >= 0 && fd < FDS) {
    free(file_of[fd]);
    file_of[fd] = NULL;
    syscall(SYS_close, fd);
  }
  return leave(&call, fd);
}

#define OPEN_MODE                                                                                                      \
  mode_t mode = 0;                                                                                                     \
  if (flags & (O_CREAT | O_TMPFILE)) {                                                                                 \
    va_list list;                                                                                                      \
    va_start(list, flags);                                                                                             \
    mode = va_arg(list, mode_t);                                                                                       \
    va_end(list);                                                                                                      \
  }

int open(const char *path, int flags, ...) {
  OPEN_MODE
  REAL(openat);
  return opened(AT_FDCWD, path, flags, mode, real);
}

int open64(const char *path, int flags, ...) {
  OPEN_MODE
  REAL(openat64);
  return opened(AT_FDCWD, path, flags, mode, real);
}

int openat(int from, const char *path, int flags, ...) {
  OPEN_MODE
  REAL(openat);
  return opened(from, path, flags, mode, real);
}

int openat64(int from, const char *path, int flags, ...) {
  OPEN_MODE
  REAL(openat64);
  return opened(from, path, flags, mode, real);
}

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
  REAL(close);
  const char *path = path_of(fd);
  if (!path) return real(fd);
  struct call call = {.kind = "close", .path = path};
  char *gone = file_of[fd];
  if (enter(&call)) {
    int error = errno;
    file_of[fd] = NULL;
    real(fd);
    errno = error;
    return -1;
  }
  file_of[fd] = NULL;
  int result = leave(&call, real(fd));
  free(gone);
  return result;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  REAL(write);
  const char *path = fd == STDOUT_FILENO && root_count ? "" : path_of(fd);
  if (!path) return real(fd, bytes, length);
  struct call call = {.kind = *path ? "write" : "say", .path = path, .data = bytes, .length = length};
  if (enter(&call)) return -1;
  call.offset = *path ? lseek(fd, 0, SEEK_CUR) : 0;
  return leave(&call, real(fd, bytes, call.action == SHORT ? (length + 1) / 2 : length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  REAL(pwrite64);
  const char *path = path_of(fd);
  if (!path) return real(fd, bytes, length, offset);
  struct call call = {.kind = "write", .path = path, .data = bytes, .length = length, .offset = offset};
  if (enter(&call)) return -1;
  return leave(&call, real(fd, bytes, call.action == SHORT ? (length + 1) / 2 : length, offset));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

/* Gathered into one piece, which the kernel may also do. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
  REAL(writev);
  if (!path_of(fd) && !(fd == STDOUT_FILENO && root_count)) return real(fd, pieces, count);
  size_t length = 0, at = 0;
  for (int i = 0; i < count; i++) length += pieces[i].iov_len;
  char *whole = malloc(length + 1);
  if (!whole) return real(fd, pieces, count);
  for (int i = 0; i < count; at += pieces[i++].iov_len) memcpy(whole + at, pieces[i].iov_base, pieces[i].iov_len);
  ssize_t done = write(fd, whole, length);
  int error = errno;
  free(whole);
  errno = error;
  return done;
}

ssize_t read(int fd, void *bytes, size_t length) {
  REAL(read);
  const char *path = path_of(fd);
  if (!path) return real(fd, bytes, length);
  struct call call = {.kind = "read", .path = path, .length = length};
  if (enter(&call)) return -1;
  return leave(&call, real(fd, bytes, length));
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
  REAL(pread64);
  const char *path = path_of(fd);
  if (!path) return real(fd, bytes, length, offset);
  struct call call = {.kind = "read", .path = path, .length = length, .offset = offset};
  if (enter(&call)) return -1;
  return leave(&call, real(fd, bytes, length, offset));
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return pread64(fd, bytes, length, offset); }

static int synced(int fd, int (*real)(int)) {
  const char *path = path_of(fd);
  if (!path) return real(fd);
  struct call call = {.kind = folder_of[fd] ? "syncdir" : "sync", .path = path};
  if (enter(&call)) return -1;
  return leave(&call, no_sync ? 0 : real(fd));
}

int fsync(int fd) {
  REAL(fsync);
  return synced(fd, real);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  return synced(fd, real);
}

int ftruncate64(int fd, off64_t length) {
  REAL(ftruncate64);
  const char *path = path_of(fd);
  if (!path) return real(fd, length);
  struct call call = {.kind = "truncate", .path = path, .offset = length};
  if (enter(&call)) return -1;
  return leave(&call, real(fd, length));
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int linkat(int from, const char *path, int to, const char *name, int flags) {
  REAL(linkat);
  char first[PATH_MAX], second[PATH_MAX];
  const char *whole = watched(from, path, first), *other = watched(to, name, second);
  if (!whole || !other) return real(from, path, to, name, flags);
  struct call call = {.kind = "link", .path = whole, .other = other};
  if (enter(&call)) return -1;
  return leave(&call, real(from, path, to, name, flags));
}

int link(const char *path, const char *name) { return linkat(AT_FDCWD, path, AT_FDCWD, name, 0); }

int renameat2(int from, const char *path, int to, const char *name, unsigned flags) {
  char first[PATH_MAX], second[PATH_MAX];
  const char *whole = watched(from, path, first), *other = watched(to, name, second);
  if (!whole || !other) return syscall(SYS_renameat2, from, path, to, name, flags);
  struct call call = {.kind = "rename", .path = whole, .other = other};
  if (enter(&call)) return -1;
  return leave(&call, syscall(SYS_renameat2, from, path, to, name, flags));
}

int renameat(int from, const char *path, int to, const char *name) { return renameat2(from, path, to, name, 0); }

int rename(const char *path, const char *name) { return renameat2(AT_FDCWD, path, AT_FDCWD, name, 0); }

int unlinkat(int from, const char *path, int flags) {
  REAL(unlinkat);
  char buffer[PATH_MAX];
  const char *whole = watched(from, path, buffer);
  if (!whole) return real(from, path, flags);
  struct call call = {.kind = flags & AT_REMOVEDIR ? "rmdir" : "unlink", .path = whole};
  if (enter(&call)) return -1;
  return leave(&call, real(from, path, flags));
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  char buffer[PATH_MAX];
  const char *whole = watched(AT_FDCWD, path, buffer);
  if (!whole) return real(path, mode);
  struct call call = {.kind = "mkdir", .path = whole};
  if (enter(&call)) return -1;
  return leave(&call, real(path, mode));
}
