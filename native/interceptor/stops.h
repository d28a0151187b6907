/* What is done at each stop of a thread. */
#ifndef STOPS_H
#define STOPS_H

#include <stdbool.h>
#include <stdio.h>

#include "tracees.h"

/* Comes first. `at_each_call`: threads stop at each call, for comparison. `log`, if any, gets a line a redirection. */
void stops_begin(bool at_each_call, FILE *log);

/* Deals with a stop, whose status waitpid(2) has told, and lets the thread go on. */
void on_stop(struct thread *thread, int status);

/* Writes how many there were. */
void stops_count(FILE *log);

#endif
