// Linux calls that Swift's Glibc module leaves out. Names, macros and calls only, no logic.
#pragma once
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

extern int accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags);
extern int ppoll(struct pollfd *ready, nfds_t count, const struct timespec *longest, const sigset_t *mask);
extern int pthread_setname_np(unsigned long thread, const char *name);

// Swift imports the enums behind these names as types of their own; plain integers are what the calls take.
static const uint32_t rms_epollin = EPOLLIN;
static const uint32_t rms_epollout = EPOLLOUT;
static const uint32_t rms_epollrdhup = EPOLLRDHUP;
static const uint32_t rms_epollhup = EPOLLHUP;
static const uint32_t rms_epollerr = EPOLLERR;
static const int rms_epoll_flags = EPOLL_CLOEXEC;
static const int rms_eventfd_flags = EFD_NONBLOCK | EFD_CLOEXEC;
static const int rms_signalfd_flags = SFD_NONBLOCK | SFD_CLOEXEC;
static const int rms_accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
static const int rms_sock_stream = SOCK_STREAM | SOCK_CLOEXEC;
static const int rms_sock_nonblock = SOCK_NONBLOCK;
static const int rms_sock_stream_plain = SOCK_STREAM;

// `prctl` takes any number of arguments, which Swift cannot call.
static inline int rms_set_timer_slack(unsigned long nanoseconds) {
  return prctl(PR_SET_TIMERSLACK, nanoseconds, 0UL, 0UL, 0UL);
}

// `sched_setattr` is newer than some C libraries; its first version of the structure serves every kernel.
struct rms_sched_attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t slice_nanoseconds, deadline, period;
};
static const uint32_t rms_sched_other = 0;
static const uint32_t rms_sched_batch = 3;
static inline int rms_sched_set(const struct rms_sched_attributes *attributes) {
  return (int)syscall(SYS_sched_setattr, 0, attributes, 0U);
}
