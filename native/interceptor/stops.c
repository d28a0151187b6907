#define _GNU_SOURCE
#include "stops.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "paths.h"

enum { MARK = 16, SYSCALL_WIDTH = 2 };

/* Not in musl's headers: linux/ptrace.h. */
enum { EVENT_STOP = 128, AT_EXIT = 2, SYSTEM_CALL_STOP = SIGTRAP | 0x80 };

static bool every;    /* stop at each call */
static FILE *journal; /* redirections, if asked for */
static uint64_t stops, redirections;
static char mark[MARK]; /* random */
/* Whether a call that goes on from its seccomp stop stops at its entry too: Linux before 4.8 and gVisor do. */
static enum { UNKNOWN, AT_EXIT_ONLY, AT_ENTRY_TOO } order;

void stops_begin(bool at_each_call, FILE *log)
{
	every = at_each_call;
	journal = log;
	if (getrandom(mark, MARK, 0) != MARK)
		fail("getrandom: %s", strerror(errno));
}

void stops_count(FILE *log)
{
	fprintf(log, "stops %llu redirections %llu\n", (unsigned long long)stops, (unsigned long long)redirections);
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

/*
 * Whether another thread's execve(2) has ended this one and taken its id since it stopped: the new one's stop is not
 * ours to deal with before waitpid(2) has told of it. Linux since 5.13 sees to that, older ones and gVisor do not.
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
 * Sets the register that holds the path's address, and no other: should another thread's execve(2) replace this one at
 * this very moment, it does not matter to the new program, which starts with any value in it.
 */
static bool set_path(const struct thread *thread, uint64_t address)
{
	size_t offset =
		thread->call->folder ? offsetof(struct user_regs_struct, rsi) : offsetof(struct user_regs_struct, rdi);
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
	thread->call = call_of(thread->asked.orig_rax);
	if (!thread->call || !replace(thread, replacement)) {
		resume(thread, false, 0);
		return;
	}
	if (!thread->page)
		take_page(thread);
	if (thread->page)
		start_call(thread, replacement);
	else
		start_mapping(thread);
}

/*
 * Whether a thread stands in the call that we have changed. It does not where another thread's execve(2) replaced it just
 * before we let it go on, so that nothing was told of that: then a new program is in a call of its own.
 */
static bool is_ours(const struct thread *thread, const struct user_regs_struct *now)
{
	if (now->rip != thread->asked.rip)
		return false;
	if (thread->state == MAPPING)
		return now->rsi == MARK + PATH_SIZE;
	return (thread->call->folder ? now->rsi : now->rdi) == thread->page + MARK;
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
	if (!is_ours(thread, &regs)) {
		on_new_program(thread);
		resume(thread, false, 0);
		return;
	}
	/*
	 * The first time it is a call to mmap(2), which does not fail with ENOSYS: that is what registers say at an
	 * entry. But a filter of the program may make it fail in any way; Linux since 5.3 says which stop it is.
	 */
	if (order == UNKNOWN) {
		unsigned long message = 0;
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

void on_stop(struct thread *thread, int status)
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
			if (event == PTRACE_EVENT_VFORK)
				share_process(child, thread);
		}
		resume(thread, false, 0);
	}
	}
}
