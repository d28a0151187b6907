/*
 * Interrupts calls that wait: `interrupted FOLDER`. Each line of its output is a call and what becomes of it by a signal whose handler
 * was installed with SA_RESTART, by one whose was not, and by SIGSTOP and SIGCONT: "waits" on, or ends with the errno.
 * signal(7) says what is right. FOLDER is an empty one on the file system to be tried.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char file[4096], fifo[4096], address[] = "@sandkube-interrupted";
static int queue, full, semaphore, report;
static const struct timespec hour = {3600, 0};

_Noreturn static void die(const char *doing)
{
	fprintf(stderr, "interrupted: %s: %s\n", doing, strerror(errno));
	_exit(120);
}

#define NEED(call) need((long)(call), #call)

static long need(long result, const char *call)
{
	if (result < 0)
		die(call);
	return result;
}

static int pipe_end(int end, int filled)
{
	static char page[4096];
	int both[2];
	NEED(pipe(both));
	if (filled) {
		NEED(fcntl(both[1], F_SETFL, O_NONBLOCK));
		while (write(both[1], page, sizeof page) > 0) {}
		NEED(fcntl(both[1], F_SETFL, 0));
	}
	return both[end];
}

static int socket_end(void)
{
	int both[2];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, both));
	return both[0];
}

static long futex(uint32_t *word, int operation, uint32_t value)
{
	return syscall(SYS_futex, word, operation, value, NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

static sigset_t only(int number)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	return set;
}

static int listener(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int made = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	memcpy(at.sun_path, address, sizeof address);
	at.sun_path[0] = 0;
	NEED(bind(made, (struct sockaddr *)&at, sizeof at));
	NEED(listen(made, 1));
	return made;
}

static char byte[8];

static long open_to_read(void) { return open(fifo, O_RDONLY); }
static long open_to_write(void) { return open(fifo, O_WRONLY); }
static long read_pipe(void) { return read(pipe_end(0, 0), byte, 1); }
static long write_pipe(void) { return write(pipe_end(1, 1), byte, 1); }
static long read_socket(void) { return read(socket_end(), byte, 1); }
static long recv_socket(void) { return recv(socket_end(), byte, 1, 0); }
static long recvmsg_socket(void)
{
	struct iovec part = {byte, 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	return recvmsg(socket_end(), &message, 0);
}
static long send_socket(void)
{
	static char page[1 << 20];
	int one = socket_end();
	while (send(one, page, sizeof page, MSG_DONTWAIT) > 0) {}
	while (send(one, page, 1, MSG_DONTWAIT) > 0) {}
	return send(one, page, sizeof page, 0);
}
static long accept_socket(void) { return accept(listener(), NULL, NULL); }
static long read_eventfd(void) { return read(eventfd(0, 0), byte, 8); }
static long read_timerfd(void)
{
	struct itimerspec when = {.it_value = hour};
	int one = timerfd_create(CLOCK_MONOTONIC, 0);
	NEED(timerfd_settime(one, 0, &when, NULL));
	return read(one, byte, 8);
}
static long read_signalfd(void)
{
	static struct signalfd_siginfo gone;
	sigset_t set = only(SIGUSR2);
	return read(signalfd(-1, &set, 0), &gone, sizeof gone);
}
static long read_inotify(void)
{
	static char room[4096];
	int one = inotify_init();
	NEED(inotify_add_watch(one, file, IN_MODIFY));
	return read(one, room, sizeof room);
}
static long splice_pipe(void) { return splice(pipe_end(0, 0), NULL, pipe_end(1, 0), NULL, 1, 0); }
static long tee_pipe(void) { return tee(pipe_end(0, 0), pipe_end(1, 0), 1, 0); }
static long lock_flock(void) { return flock((int)NEED(open(file, O_RDWR)), LOCK_EX); }
static long lock_posix(void)
{
	struct flock whole = {.l_type = F_WRLCK};
	return fcntl((int)NEED(open(file, O_RDWR)), F_SETLKW, &whole);
}
static long lock_ofd(void)
{
	struct flock whole = {.l_type = F_WRLCK};
	return fcntl((int)NEED(open(file, O_RDWR)), F_OFD_SETLKW, &whole);
}
static pid_t idle_child(void)
{
	pid_t child = (pid_t)NEED(fork());
	if (child == 0) {
		pid_t parent = getppid();
		while (getppid() == parent)
			usleep(100000);
		_exit(0);
	}
	return child;
}
static long wait_child(void) { return waitpid(idle_child(), NULL, 0); }
static long waitid_child(void)
{
	siginfo_t gone;
	return waitid(P_PID, (id_t)idle_child(), &gone, WEXITED);
}
static long futex_wait(void)
{
	static uint32_t word;
	return futex(&word, FUTEX_WAIT, 0);
}
static long futex_wait_bitset(void)
{
	static uint32_t word;
	return futex(&word, FUTEX_WAIT_BITSET, 0);
}
static long futex_lock_pi(void)
{
	uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getpid(), owner = (pid_t)NEED(fork());
	if (owner == 0) {
		NEED(futex(word, FUTEX_LOCK_PI, 0));
		while (getppid() == parent)
			usleep(100000);
		_exit(0);
	}
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0)
		sched_yield();
	return futex(word, FUTEX_LOCK_PI, 0);
}
static long poll_pipe(void)
{
	struct pollfd one = {.fd = pipe_end(0, 0), .events = POLLIN};
	return poll(&one, 1, -1);
}
static long ppoll_pipe(void)
{
	struct pollfd one = {.fd = pipe_end(0, 0), .events = POLLIN};
	return ppoll(&one, 1, &hour, NULL);
}
static long select_pipe(void)
{
	int one = pipe_end(0, 0);
	fd_set set;
	FD_ZERO(&set);
	FD_SET(one, &set);
	return select(one + 1, &set, NULL, NULL, NULL);
}
static long wait_epoll(void)
{
	struct epoll_event gone;
	return epoll_wait((int)NEED(epoll_create1(0)), &gone, 1, -1);
}
static long sleep_nano(void) { return nanosleep(&hour, NULL); }
static long sleep_absolute(void)
{
	struct timespec when;
	NEED(clock_gettime(CLOCK_MONOTONIC, &when));
	when.tv_sec += 3600;
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}
static long pause_it(void) { return pause(); }
static long suspend(void)
{
	sigset_t none;
	sigemptyset(&none);
	return sigsuspend(&none);
}
static long wait_signal(void)
{
	sigset_t set = only(SIGUSR2);
	NEED(sigprocmask(SIG_BLOCK, &set, NULL));
	return syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, 8); // musl tries again by itself
}
static long wait_semaphore(void)
{
	struct sembuf down = {.sem_op = -1};
	return semop(semaphore, &down, 1);
}
static struct { long type; char text[4096]; } message = {.type = 1};
static long receive_message(void) { return msgrcv(queue, &message, sizeof message.text, 0, 0); }
static long send_message(void) { return msgsnd(full, &message, sizeof message.text, 0); }

static const struct { const char *name; long (*call)(void); } calls[] = {
	{"open FIFO to read", open_to_read}, {"open FIFO to write", open_to_write},
	{"read pipe", read_pipe}, {"write pipe", write_pipe}, {"read socket", read_socket}, {"recv", recv_socket},
	{"recvmsg", recvmsg_socket}, {"send", send_socket}, {"accept", accept_socket}, {"read eventfd", read_eventfd},
	{"read timerfd", read_timerfd}, {"read signalfd", read_signalfd}, {"read inotify", read_inotify},
	{"splice", splice_pipe}, {"tee", tee_pipe}, {"flock", lock_flock}, {"F_SETLKW", lock_posix},
	{"F_OFD_SETLKW", lock_ofd}, {"waitpid", wait_child}, {"waitid", waitid_child}, {"FUTEX_WAIT", futex_wait},
	{"FUTEX_WAIT_BITSET", futex_wait_bitset}, {"FUTEX_LOCK_PI", futex_lock_pi}, {"poll", poll_pipe}, {"ppoll", ppoll_pipe},
	{"select", select_pipe}, {"epoll_wait", wait_epoll}, {"nanosleep", sleep_nano},
	{"clock_nanosleep absolute", sleep_absolute}, {"pause", pause_it}, {"sigsuspend", suspend},
	{"rt_sigtimedwait", wait_signal}, {"semop", wait_semaphore}, {"msgrcv", receive_message}, {"msgsnd", send_message},
};

static void handler(int number)
{
	(void)number;
	if (write(report, "h", 1) != 1)
		_exit(121);
}

/* The state that proc(5) stat gives: S sleeps, T is stopped. */
static char state_of(pid_t child)
{
	char name[64], text[512];
	snprintf(name, sizeof name, "/proc/%d/stat", child);
	int one = open(name, O_RDONLY);
	if (one < 0)
		return 0;
	ssize_t length = read(one, text, sizeof text - 1);
	close(one);
	if (length <= 0)
		return 0;
	text[length] = 0;
	char *end = strrchr(text, ')');
	return end ? end[2] : 0;
}

/* Whether the child ended: its exit status, or -1 once it was seen in the state for a while. */
static int settled(pid_t child, char state)
{
	int status;
	for (int seen = 0; seen < 5; usleep(5000)) {
		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 122;
		seen = state_of(child) == state ? seen + 1 : 0;
	}
	return -1;
}

/* One call, interrupted twice. */
static const char *attempt(long (*call)(void), int flags, int stop)
{
	int both[2];
	NEED(pipe(both));
	pid_t child = (pid_t)NEED(fork());
	if (child == 0) {
		report = both[1];
		struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
		NEED(sigaction(SIGUSR1, &action, NULL));
		errno = 0;
		_exit(call() < 0 ? errno : 0);
	}
	close(both[1]);
	int status = settled(child, 'S');
	for (int i = 0; i < 2 && status < 0; i++) {
		char gone;
		if (stop) {
			NEED(kill(child, SIGSTOP));
			while (state_of(child) != 'T')
				usleep(1000);
			NEED(kill(child, SIGCONT));
		} else {
			NEED(kill(child, SIGUSR1));
			NEED(read(both[0], &gone, 1));
		}
		status = settled(child, 'S');
	}
	if (status < 0) {
		NEED(kill(child, SIGKILL));
		NEED(waitpid(child, NULL, 0));
	}
	close(both[0]);
	return status < 0 ? "waits" : status == 0 ? "done" : status == EINTR ? "EINTR" : strerror(status);
}

int main(int count, char **words)
{
	if (count != 2) {
		fprintf(stderr, "usage: interrupted FOLDER\n");
		return 2;
	}
	snprintf(file, sizeof file, "%s/file", words[1]);
	snprintf(fifo, sizeof fifo, "%s/fifo", words[1]);
	int held = (int)NEED(open(file, O_RDWR | O_CREAT, 0600));
	struct flock whole = {.l_type = F_WRLCK};
	NEED(flock(held, LOCK_EX));
	NEED(fcntl(held, F_SETLK, &whole));
	NEED(mkfifo(fifo, 0600));
	queue = (int)NEED(msgget(IPC_PRIVATE, 0600));
	full = (int)NEED(msgget(IPC_PRIVATE, 0600));
	while (msgsnd(full, &message, sizeof message.text, IPC_NOWAIT) == 0) {}
	semaphore = (int)NEED(semget(IPC_PRIVATE, 1, 0600));
	for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
		const char *restarted = attempt(calls[at].call, SA_RESTART, 0);
		const char *plain = attempt(calls[at].call, 0, 0);
		printf("%s: %s, %s, %s\n", calls[at].name, restarted, plain, attempt(calls[at].call, 0, 1));
		fflush(stdout);
	}
	NEED(msgctl(queue, IPC_RMID, NULL));
	NEED(msgctl(full, IPC_RMID, NULL));
	NEED(semctl(semaphore, 0, IPC_RMID));
	NEED(unlink(file));
	NEED(unlink(fifo));
	return 0;
}
