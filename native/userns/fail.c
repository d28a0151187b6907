#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *prefix = "userns: ";

_Noreturn void fail(const char *text, ...)
{
	va_list arguments;
	int error = errno;
	va_start(arguments, text);
	fputs(prefix, stderr);
	vfprintf(stderr, text, arguments);
	fprintf(stderr, ": %s\n", strerror(error));
	va_end(arguments);
	exit(OWN_ERROR);
}
