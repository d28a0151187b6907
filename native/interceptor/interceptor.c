/*
 * interceptor: runs a program that opens some files elsewhere than it says.
 *
 * How. A seccomp(2) filter stops the traced program at the calls of the table below and nowhere else. A stopped call
 * whose path a rule names, and whose replacement exists, is made with another path: the string is put into a page of
 * the program's memory that nothing else uses, the register that holds the path's address points there for as long as
 * the call lasts, and gets its own value back when the call returns.
 *
 * Why not rewrite the path where it is: it may be in read-only memory, other threads may be reading it, and a thread
 * that changes it between our look and the kernel's would make a third path of two. Why not write it below the stack
 * pointer: the stacks of goroutines are small, and what is below them belongs to others. So the page is one that we
 * let the program map itself: the first call of a thread that needs one is first made as mmap(2), then repeated by
 * stepping back over the syscall instruction, as the kernel does to restart a call. A page is one thread's; when the
 * thread ends, the next thread of the process that needs one takes it. What the program passes is therefore
 * copied once: the call sees the whole old path or the whole new one, and no byte of the program's own memory is written.
 *
 * Left alone: paths with a part "..", which only the kernel can resolve; symbolic links to named paths; calls of other
 * ABIs (i386, x32); openat2(2) with RESOLVE_BENEATH or RESOLVE_IN_ROOT, except for rules of last components. Replacements are
 * looked up in the interceptor's own root folder.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rules.h"

#ifndef VERSION
#define VERSION "0"
#endif

enum { OWN_ERROR = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };
enum { PAGE = 4096, MARK = 16, SYSCALL_WIDTH = 2 };

/* Not in musl's headers: linux/ptrace.h, linux/openat2.h, linux/sched.h. */
enum { EVENT_STOP = 128, AT_EXIT = 2, SYSTEM_CALL_STOP = SIGTRAP | 0x80 };
enum { RESOLVE_BENEATH_ = 0x08, RESOLVE_IN_ROOT_ = 0x10, RESOLVE_OFFSET = 16 };

/* The calls that are looked at, and where their path is. */
static const struct call {
	long number;
	const char *name;
	bool folder; /* a folder's descriptor comes first, then the path */
	bool how;    /* third, the address of a struct open_how */
} calls[] = {
	{SYS_open, "open", false, false},
	{SYS_creat, "creat", false, false},
	{SYS_stat, "stat", false, false},
	{SYS_lstat, "lstat", false, false},
	{SYS_access, "access", false, false},
	{SYS_readlink, "readlink", false, false},
	{SYS_statfs, "statfs", false, false},
	{SYS_truncate, "truncate", false, false},
	{SYS_openat, "openat", true, false},
	{437, "openat2", true, true},
	{SYS_newfstatat, "newfstatat", true, false},
	{332, "statx", true, false},
	{SYS_faccessat, "faccessat", true, false},
	{439, "faccessat2", true, false},
	{SYS_readlinkat, "readlinkat", true, false},
};
enum { CALLS = sizeof calls / sizeof *calls };

/* A process: the pages that its ended threads have left. */
struct process {
	struct process *next;
	pid_t pid;
	unsigned threads;
	size_t free;
	uint64_t *pages;
};

/* A thread that we trace. */
struct thread {
	struct thread *next;
	pid_t tid;
	struct process *process; /* known from the first call that needed a page */
	uint64_t page;
	bool fresh; /* just mapped: without the mark */
	enum { FREE, MAPPING, CALLING } state;
	bool entered;                  /* the stop at the entry of the call is behind us */
	struct user_regs_struct asked; /* the registers of the program's own call */
	const struct call *call;
	bool executed; /* at the stop of its own execve(2) */
	bool stopped; /* and this is yet to be dealt with: */
	int status;
};

enum { BUCKETS = 1024 };
static struct thread *threads[BUCKETS];
static struct process *processes[BUCKETS];
static size_t traced;

static volatile pid_t program; /* the program that was started; 0 when it has ended */
static bool every;          /* stop at each call: for comparison */
static FILE *journal;       /* redirections, if asked for */
static uint64_t stops, redirections;
static char mark[MARK]; /* random */
static bool roots;      /* /proc has the root folder of each process; early gVisor's has not */
/* Whether a call that goes on from its seccomp stop stops at its entry too: Linux before 4.8 and gVisor do. */
static enum { UNKNOWN, AT_EXIT_ONLY, AT_ENTRY_TOO } order;

static void fail(const char *text, ...)
{
	va_list arguments;
	va_start(arguments, text);
	fputs("interceptor: ", stderr);
	vfprintf(stderr, text, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(OWN_ERROR);
}

static void *reserve(void *old, size_t size)
{
	void *memory = realloc(old, size);
	if (!memory)
		fail("no memory");
	return memory;
}

/* --- threads and processes --- */

static struct thread *find_thread(pid_t tid)
{
	struct thread *each = threads[(size_t)tid % BUCKETS];
	while (each && each->tid != tid)
		each = each->next;
	return each;
}

static struct thread *thread_of(pid_t tid)
{
	struct thread **bucket = &threads[(size_t)tid % BUCKETS];
	struct thread *made = find_thread(tid);
	if (made)
		return made;
	made = reserve(NULL, sizeof *made);
	*made = (struct thread){.next = *bucket, .tid = tid};
	*bucket = made;
	traced++;
	return made;
}

static pid_t group_of(pid_t tid)
{
	char name[64], line[256];
	pid_t found = tid;
	snprintf(name, sizeof name, "/proc/%d/status", tid);
	FILE *status = fopen(name, "re");
	if (!status)
		return found;
	while (fgets(line, sizeof line, status))
		if (sscanf(line, "Tgid: %d", &found) == 1)
			break;
	fclose(status);
	return found;
}

static struct process *process_of(struct thread *thread)
{
	if (thread->process)
		return thread->process;
	pid_t pid = group_of(thread->tid);
	struct process **bucket = &processes[(size_t)pid % BUCKETS];
	struct process *found = *bucket;
	while (found && found->pid != pid)
		found = found->next;
	if (!found) {
		found = reserve(NULL, sizeof *found);
		*found = (struct process){.next = *bucket, .pid = pid};
		*bucket = found;
	}
	found->threads++;
	return thread->process = found;
}

static void leave_process(struct thread *thread)
{
	struct process *process = thread->process;
	if (!process)
		return;
	if (thread->page) {
		process->pages = reserve(process->pages, (process->free + 1) * sizeof *process->pages);
		process->pages[process->free++] = thread->page;
	}
	if (--process->threads == 0) {
		struct process **at = &processes[(size_t)process->pid % BUCKETS];
		while (*at != process)
			at = &(*at)->next;
		*at = process->next;
		free(process->pages);
		free(process);
	}
	thread->process = NULL;
	thread->page = 0;
}

static void forget(pid_t tid)
{
	for (struct thread **at = &threads[(size_t)tid % BUCKETS]; *at; at = &(*at)->next)
		if ((*at)->tid == tid) {
			struct thread *gone = *at;
			leave_process(gone);
			*at = gone->next;
			free(gone);
			traced--;
			return;
		}
}

/* execve(2) gives the process new memory; of its threads only the one with the process's id is left. */
static void on_exec(struct thread *thread)
{
	unsigned long former = 0;
	if (ptrace(PTRACE_GETEVENTMSG, thread->tid, 0, &former) == 0 && (pid_t)former != thread->tid)
		forget((pid_t)former);
	leave_process(thread); /* a parent that waits in vfork(2) has the old memory still */
	thread->fresh = false;
	thread->state = FREE;
	thread->entered = false;
}

/* --- the program's memory --- */

/* Reads a string; false if it is not readable or longer than a path may be. */
static bool read_path(pid_t tid, uint64_t address, char path[PATH_SIZE])
{
	size_t length = 0;
	while (length < PATH_SIZE) {
		size_t part = PAGE - (address + length) % PAGE; /* the next page may not be there */
		if (part > PATH_SIZE - length)
			part = PATH_SIZE - length;
		struct iovec here = {path + length, part}, there = {(void *)(uintptr_t)(address + length), part};
		ssize_t got = process_vm_readv(tid, &here, 1, &there, 1, 0);
		if (got <= 0)
			return false;
		if (memchr(path + length, '\0', (size_t)got))
			return true;
		length += (size_t)got;
	}
	return false;
}

/* A page starts with a mark. Without it the program has unmapped the page and perhaps something else is there. */
static bool is_marked(pid_t tid, uint64_t page)
{
	char found[MARK];
	struct iovec here = {found, MARK}, there = {(void *)(uintptr_t)page, MARK};
	return process_vm_readv(tid, &here, 1, &there, 1, 0) == MARK && memcmp(found, mark, MARK) == 0;
}

static bool write_page(pid_t tid, uint64_t page, const char *text)
{
	size_t length = strlen(text) + 1;
	struct iovec here[] = {{mark, MARK}, {(void *)(uintptr_t)text, length}};
	struct iovec there = {(void *)(uintptr_t)page, MARK + length};
	return process_vm_writev(tid, here, 2, &there, 1, 0) == (ssize_t)(MARK + length);
}

/* --- which path instead --- */

static bool exists(const char *path)
{
	struct stat status;
	return fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The place in /proc of what a path starts from. */
static void base_name(const struct thread *thread, const char *path, int descriptor, char *name, size_t size)
{
	if (path[0] == '/' && !roots)
		name[0] = '\0';
	else if (path[0] == '/')
		snprintf(name, size, "/proc/%d/root", thread->tid);
	else if (descriptor == AT_FDCWD)
		snprintf(name, size, "/proc/%d/cwd", thread->tid);
	else
		snprintf(name, size, "/proc/%d/fd/%d", thread->tid, descriptor);
}

static bool is_confined(const struct thread *thread)
{
	uint64_t resolve = 0;
	if (!thread->call->how)
		return false;
	struct iovec here = {&resolve, sizeof resolve};
	struct iovec there = {(void *)(uintptr_t)(thread->asked.rdx + RESOLVE_OFFSET), sizeof resolve};
	if (process_vm_readv(thread->tid, &here, 1, &there, 1, 0) != sizeof resolve)
		return true;
	return resolve & (RESOLVE_BENEATH_ | RESOLVE_IN_ROOT_);
}

/* A path that ends so leads to a folder or nowhere, and through a symbolic link. */
static bool must_be_folder(const char *path)
{
	size_t length = strlen(path);
	return path[length - 1] == '/' || (length > 1 && strcmp(path + length - 2, "/.") == 0);
}

/* Finds what to pass instead of the path of a stopped call; false if the call is to go on as it is. */
static bool replace(const struct thread *thread, char replacement[PATH_SIZE])
{
	char path[PATH_SIZE], folder[PATH_SIZE] = "", normal[PATH_SIZE], base[64], root[64], at[PATH_SIZE + 64];
	const struct user_regs_struct *regs = &thread->asked;
	if (!read_path(thread->tid, thread->call->folder ? regs->rsi : regs->rdi, path) || !path[0])
		return false;
	base_name(thread, path, thread->call->folder ? (int)regs->rdi : AT_FDCWD, base, sizeof base);
	base_name(thread, "/", AT_FDCWD, root, sizeof root);
	if (rules_match_last(path, replacement)) {
		snprintf(at, sizeof at, "%s/%s", base, replacement);
		return exists(at);
	}
	if (path[0] != '/') {
		ssize_t length = readlink(base, folder, sizeof folder - 1);
		/* After chroot(2) we and the program call its folders by other names. */
		if (length <= 0 || folder[0] != '/' || (roots && readlink(root, at, sizeof at) != 1))
			return false;
		folder[length] = '\0';
	}
	if (!rules_normalise(folder, path, normal) || !rules_match(normal, replacement) || is_confined(thread))
		return false;
	if (must_be_folder(path)) {
		if (strlen(replacement) + 1 >= PATH_SIZE)
			return false;
		strcat(replacement, "/");
	}
	snprintf(at, sizeof at, "%s%s", root, replacement);
	return exists(at);
}

/* --- stops --- */

/*
 * Whether another thread's execve(2) has ended this one and taken its id since it stopped: the new one's stop is not ours
 * to deal with before waitpid(2) has told of it. Linux since 5.13 sees to that, older ones and gVisor do not.
 */
static bool is_replaced(const struct thread *thread)
{
	siginfo_t now;
	if (ptrace(PTRACE_GETSIGINFO, thread->tid, 0, &now) != 0)
		return errno == ESRCH; /* killed; the other one may be about to stop */
	return now.si_code == (SIGTRAP | PTRACE_EVENT_EXEC << 8);
}

static void resume(const struct thread *thread, bool stop_at_calls, int signal)
{
	if (!signal && !thread->executed && is_replaced(thread))
		return;
	/* ESRCH: it was killed meanwhile; waitpid(2) will say so. */
	ptrace(stop_at_calls || every ? PTRACE_SYSCALL : PTRACE_CONT, thread->tid, 0, (long)signal);
}

static bool get_registers(const struct thread *thread, struct user_regs_struct *regs)
{
	struct iovec vector = {regs, sizeof *regs};
	return ptrace(PTRACE_GETREGSET, thread->tid, NT_PRSTATUS, &vector) == 0 && vector.iov_len == sizeof *regs;
}

static bool set_registers(const struct thread *thread, struct user_regs_struct *regs)
{
	struct iovec vector = {regs, sizeof *regs};
	return !is_replaced(thread) && ptrace(PTRACE_SETREGSET, thread->tid, NT_PRSTATUS, &vector) == 0;
}

/*
 * Sets the register that holds the path's address, and no other: should another thread's execve(2) replace this one at this
 * very moment, it does not matter to the new program, which starts with any value in it.
 */
static bool set_path(const struct thread *thread, uint64_t address)
{
	size_t offset = thread->call->folder ? offsetof(struct user_regs_struct, rsi) : offsetof(struct user_regs_struct, rdi);
	return !is_replaced(thread) && ptrace(PTRACE_POKEUSER, thread->tid, offset, address) == 0;
}

static void start_mapping(struct thread *thread)
{
	struct user_regs_struct regs = thread->asked;
	regs.orig_rax = SYS_mmap;
	regs.rdi = 0;
	regs.rsi = MARK + PATH_SIZE; /* of the second page only the longest paths need a part */
	regs.rdx = PROT_READ | PROT_WRITE;
	regs.r10 = MAP_PRIVATE | MAP_ANONYMOUS;
	regs.r8 = (unsigned long long)-1;
	regs.r9 = 0;
	if (!set_registers(thread, &regs)) {
		resume(thread, false, 0);
		return;
	}
	thread->state = MAPPING;
	thread->entered = false;
	resume(thread, true, 0);
}

/* mmap(2) has returned: the program's own call is made anew. */
static void end_mapping(struct thread *thread, const struct user_regs_struct *now)
{
	struct user_regs_struct regs = thread->asked;
	bool mapped = now->rax < (unsigned long long)-4095;
	thread->state = FREE;
	if (mapped)
		thread->page = now->rax;
	thread->fresh = mapped;
	regs.rip -= SYSCALL_WIDTH;
	regs.rax = thread->asked.orig_rax;
	regs.orig_rax = (unsigned long long)-1; /* no call to restart */
	thread->entered = !mapped;              /* then the call passes when it comes again */
	set_registers(thread, &regs);
	resume(thread, false, 0);
}

static void start_call(struct thread *thread, const char *replacement)
{
	bool fresh = thread->fresh;
	thread->fresh = false;
	if ((!fresh && !is_marked(thread->tid, thread->page)) || !write_page(thread->tid, thread->page, replacement)) {
		thread->page = 0; /* the program has unmapped it */
		if (fresh)
			resume(thread, false, 0);
		else
			start_mapping(thread);
		return;
	}
	if (!set_path(thread, thread->page + MARK)) {
		resume(thread, false, 0);
		return;
	}
	redirections++;
	if (journal)
		fprintf(journal, "%d %s %s\n", thread->tid, thread->call->name, replacement);
	thread->state = CALLING;
	thread->entered = false;
	resume(thread, true, 0);
}

static void end_call(struct thread *thread)
{
	thread->state = FREE;
	set_path(thread, thread->call->folder ? thread->asked.rsi : thread->asked.rdi);
	resume(thread, false, 0);
}

static void on_seccomp(struct thread *thread)
{
	char replacement[PATH_SIZE];
	bool unmappable = thread->entered && thread->state == FREE;
	thread->state = FREE;
	thread->entered = false;
	stops++;
	if (unmappable || !get_registers(thread, &thread->asked)) {
		resume(thread, false, 0);
		return;
	}
	thread->call = NULL;
	for (size_t i = 0; i < CALLS && !thread->call; i++)
		if (calls[i].number == (int)thread->asked.orig_rax) /* as the kernel: the upper half does not count */
			thread->call = &calls[i];
	if (!thread->call || !replace(thread, replacement)) {
		resume(thread, false, 0);
		return;
	}
	if (!thread->page) {
		struct process *process = process_of(thread);
		if (process->free > 0)
			thread->page = process->pages[--process->free];
	}
	if (thread->page)
		start_call(thread, replacement);
	else
		start_mapping(thread);
}

/* The stops at entry and exit of a call that we let go on from its seccomp stop. */
static void on_call(struct thread *thread)
{
	struct user_regs_struct regs;
	stops += every;
	if (thread->state == FREE || !get_registers(thread, &regs)) {
		resume(thread, false, 0);
		return;
	}
	/* The first time it is a call to mmap(2), which does not fail with ENOSYS: that is what registers say at an entry. */
	if (order == UNKNOWN) {
		unsigned long message = 0; /* Linux since 5.3 says it: a filter of the program may make mmap(2) fail in any way */
		ptrace(PTRACE_GETEVENTMSG, thread->tid, 0, &message);
		order = regs.rax == (unsigned long long)-ENOSYS && message != AT_EXIT ? AT_ENTRY_TOO : AT_EXIT_ONLY;
	}
	if (order == AT_ENTRY_TOO && !thread->entered) {
		thread->entered = true;
		resume(thread, true, 0);
		return;
	}
	thread->entered = false;
	if (thread->state == MAPPING)
		end_mapping(thread, &regs);
	else
		end_call(thread);
}

static void on_stop(struct thread *thread, int status)
{
	int signal = WSTOPSIG(status), event = status >> 16;
	switch (event) {
	case PTRACE_EVENT_SECCOMP:
		on_seccomp(thread);
		return;
	case PTRACE_EVENT_EXEC:
		on_exec(thread);
		thread->executed = true;
		resume(thread, false, 0);
		thread->executed = false;
		return;
	case EVENT_STOP:
		if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)
			ptrace(PTRACE_LISTEN, thread->tid, 0, 0); /* a group stop: it stays stopped until SIGCONT */
		else
			resume(thread, thread->state != FREE, 0);
		return;
	case 0:
		if (signal == SYSTEM_CALL_STOP)
			on_call(thread);
		else
			resume(thread, thread->state != FREE, signal);
		return;
	default: { /* fork, vfork, clone: the new thread stops by itself, perhaps after the end of this one */
		unsigned long made = 0;
		siginfo_t news;
		/* Its end may have been told already: ECHILD. */
		if (ptrace(PTRACE_GETEVENTMSG, thread->tid, 0, &made) == 0 && made != 0 &&
		    waitid(P_PID, (id_t)made, &news, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0) {
			struct thread *child = thread_of((pid_t)made);
			if (event == PTRACE_EVENT_VFORK && !child->process) { /* it has its parent's memory */
				child->process = process_of(thread);
				child->process->threads++;
			}
		}
		resume(thread, false, 0);
	}
	}
}

/* Runs until nothing is traced any more; the exit status of the program. */
static int trace(void)
{
	int result = OWN_ERROR;
	pid_t *stopped = NULL;
	size_t length = 0, room = 0;
	while (traced > 0) {
		int status;
		/* waitpid(2) looks at the youngest first. All that have stopped get their turn before it is asked anew. */
		pid_t tid = waitpid(-1, &status, length > 0 ? __WALL | WNOHANG : __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0 && length == 0)
			break;
		if (tid <= 0) {
			for (size_t i = 0; i < length; i++) {
				struct thread *thread = find_thread(stopped[i]);
				if (thread && thread->stopped) {
					thread->stopped = false;
					on_stop(thread, thread->status);
				}
			}
			length = 0;
			continue;
		}
		if (WIFSTOPPED(status)) {
			struct thread *thread = thread_of(tid);
			if (length == room)
				stopped = reserve(stopped, (room += 256) * sizeof *stopped);
			stopped[length++] = tid;
			thread->stopped = true; /* a stop before this one is void: killed, or replaced by execve(2) */
			thread->status = status;
			continue;
		}
		forget(tid);
		if (tid == program) {
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			program = 0;
		}
	}
	free(stopped);
	return result;
}

/* --- start --- */

static int install_filter(void)
{
	struct sock_filter code[4 + CALLS + 2];
	size_t length = 0;
	code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, CALLS + 1);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < CALLS; i++)
		code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number,
							       (uint8_t)(CALLS - i), 0);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	struct sock_fprog filter = {(unsigned short)length, code};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0)
		return 0;
	if (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) /* without CAP_SYS_ADMIN */
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

enum step { TRACED, FILTER, EXECUTE };
struct report {
	enum step step;
	int error;
};

static _Noreturn void become(char **words, int go, int tell)
{
	char byte;
	struct report report = {TRACED, ESRCH};
	if (read(go, &byte, 1) == 1) {
		report = (struct report){FILTER, 0};
		if (install_filter() == 0) {
			report.step = EXECUTE;
			execvp(words[0], words);
		}
		report.error = errno;
	}
	_exit(write(tell, &report, sizeof report) == sizeof report ? OWN_ERROR : OWN_ERROR);
}

static void pass_on(int signal)
{
	if (program == 0)
		_exit(128 + signal); /* what the program has left behind ends with its tracer */
	kill(program, signal);
}

static void pass_signals_on(void)
{
	static const int passed[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
	struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
	for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
		struct sigaction before;
		if (sigaction(passed[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup(1) */
			sigaction(passed[i], &action, NULL);
	}
	/* A terminal sends these to the program by itself. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN); /* a log that nobody reads any more ends nothing */
}

static int start(char **words)
{
	int go[2], tell[2];
	char self[16] = "";
	if (readlink("/proc/self", self, sizeof self - 1) < 0 || atoi(self) != getpid())
		fail("/proc is missing or of another PID namespace");
	roots = access("/proc/self/root", F_OK) == 0;
	if (pipe2(go, O_CLOEXEC) != 0 || pipe2(tell, O_CLOEXEC) != 0)
		fail("pipe: %s", strerror(errno));
	program = fork();
	if (program < 0)
		fail("fork: %s", strerror(errno));
	if (program == 0) {
		close(go[1]);
		become(words, go[0], tell[1]);
	}
	close(go[0]);
	close(tell[1]);
	long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
	if (ptrace(PTRACE_SEIZE, program, 0, options) != 0) {
		int error = errno;
		kill(program, SIGKILL);
		fail("ptrace: %s", strerror(error));
	}
	thread_of(program);
	pass_signals_on();
	if (getrandom(mark, MARK, 0) != MARK)
		fail("getrandom: %s", strerror(errno));
	if (write(go[1], "", 1) != 1)
		fail("pipe: %s", strerror(errno));
	close(go[1]);
	int result = trace();
	struct report report;
	if (read(tell[0], &report, sizeof report) != sizeof report)
		return result;
	if (report.step == EXECUTE) {
		fprintf(stderr, "interceptor: %s: %s\n", words[0], strerror(report.error));
		return report.error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
	}
	fail("seccomp: %s", strerror(report.error));
	return OWN_ERROR;
}

static const char usage[] =
	"Usage: interceptor --rules FILE [--log FILE] [--all] [--] PROGRAM [ARGUMENT ...]\n"
	"Runs a program that opens some files elsewhere than it says.\n\n"
	"  --rules FILE  one rule a line: FROM TO. Paths that end with a slash stand for all that is below.\n"
	"                */NAME NAME stands for every file of the first name: the second, in the same folder.\n"
	"  --log FILE    write a line for each redirected call, and counts at the end; - is standard error\n"
	"  --all         stop at every system call, for comparison\n"
	"  --version, --help\n\n"
	"Exit status: the program's; 128 and the signal that ended it; 125 an error here; 126 the program\n"
	"cannot be executed; 127 there is none.\n";

int main(int count, char **words)
{
	static const struct option options[] = {
		{"rules", required_argument, NULL, 'r'}, {"log", required_argument, NULL, 'l'},
		{"all", no_argument, NULL, 'a'},         {"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
	};
	const char *rules = NULL, *log = NULL;
	for (int option; (option = getopt_long(count, words, "+", options, NULL)) != -1;)
		switch (option) {
		case 'r':
			rules = optarg;
			break;
		case 'l':
			log = optarg;
			break;
		case 'a':
			every = true;
			break;
		case 'v':
			puts("interceptor " VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("interceptor: --help tells more\n", stderr);
			return OWN_ERROR;
		}
	if (!rules || optind == count)
		fail("%s; --help tells more", rules ? "no program is named" : "--rules FILE is missing");
	if (!rules_read(rules))
		return OWN_ERROR;
	if (log && strcmp(log, "-") == 0)
		journal = stderr;
	else if (log && !(journal = fopen(log, "we")))
		fail("%s: %s", log, strerror(errno));
	if (journal)
		setvbuf(journal, NULL, _IOLBF, 0);
	int result = start(words + optind);
	if (journal) {
		fprintf(journal, "stops %llu redirections %llu\n", (unsigned long long)stops, (unsigned long long)redirections);
		if (fflush(journal) != 0 || ferror(journal))
			fprintf(stderr, "interceptor: %s: not all could be written\n", log);
	}
	return result;
}
