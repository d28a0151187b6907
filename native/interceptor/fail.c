#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void fail(const char *text, ...)
{
	va_list arguments;
	va_start(arguments, text);
	fputs("interceptor: ", stderr);
	vfprintf(stderr, text, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(OWN_ERROR);
}

void *reserve(void *old, size_t size)
{
	void *memory = realloc(old, size);
	if (!memory)
		fail("no memory");
	return memory;
}
