#define _GNU_SOURCE
#include "tracees.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>

#include "fail.h"

enum { BUCKETS = 1024 };
static struct thread *threads[BUCKETS];
static struct process *processes[BUCKETS];
size_t traced;

struct thread *find_thread(pid_t tid)
{
	struct thread *each = threads[(size_t)tid % BUCKETS];
	while (each && each->tid != tid)
		each = each->next;
	return each;
}

struct thread *thread_of(pid_t tid)
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

struct process *process_of(struct thread *thread)
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

void forget(pid_t tid)
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

void on_new_program(struct thread *thread)
{
	leave_process(thread); /* a parent that waits in vfork(2) has the old memory still */
	thread->fresh = false;
	thread->state = FREE;
	thread->entered = false;
}

void on_exec(struct thread *thread)
{
	unsigned long former = 0;
	if (ptrace(PTRACE_GETEVENTMSG, thread->tid, 0, &former) == 0 && (pid_t)former != thread->tid)
		forget((pid_t)former);
	on_new_program(thread);
}

void share_process(struct thread *child, struct thread *parent)
{
	if (child->process)
		return;
	child->process = process_of(parent);
	child->process->threads++;
}

void take_page(struct thread *thread)
{
	struct process *process = process_of(thread);
	if (process->free > 0)
		thread->page = process->pages[--process->free];
}
