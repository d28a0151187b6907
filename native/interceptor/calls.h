/* The calls that are looked at. */
#ifndef CALLS_H
#define CALLS_H

#include <stdbool.h>

struct call {
	long number;
	const char *name;
	bool folder; /* a folder's descriptor comes first, then the path */
	bool how;    /* third, the address of a struct open_how */
};

/* The call of a number as a register holds it; NULL if it is not looked at. */
const struct call *call_of(unsigned long long number);

/* From now on this process and all that come from it stop at these calls, and need a tracer. As seccomp(2). */
int install_filter(void);

#endif
