/* What is known of the threads and processes that are traced. */
#ifndef TRACEES_H
#define TRACEES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "calls.h"

/* A process: the pages that its ended threads have left. */
struct process {
	struct process *next;
	pid_t pid;
	unsigned threads;
	size_t free;
	uint64_t *pages;
};

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
	bool stopped;  /* and this is yet to be dealt with: */
	int status;
};

/* How many threads are traced. */
extern size_t traced;

/* NULL if it is not known. */
struct thread *find_thread(pid_t tid);

/* A thread that is not known becomes known. */
struct thread *thread_of(pid_t tid);

/* The thread has ended. */
void forget(pid_t tid);

/* The process of a thread; it has one from then on. */
struct process *process_of(struct thread *thread);

/* The child of vfork(2) has its parent's memory until it ends or executes: the pages that it maps are the parent's. */
void share_process(struct thread *child, struct thread *parent);

/* A page that an ended thread has left, if there is one. */
void take_page(struct thread *thread);

/* The process has new memory, and nothing of a call of the old one is left. */
void on_new_program(struct thread *thread);

/* At the stop of execve(2): the process has new memory; of its threads only the one with the process's id is left. */
void on_exec(struct thread *thread);

#endif
