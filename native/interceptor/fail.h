/* Ends here, with a sentence. */
#ifndef FAIL_H
#define FAIL_H

#include <stddef.h>

enum { OWN_ERROR = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

/* Prints the sentence and exits with OWN_ERROR. What is traced ends with its tracer. */
_Noreturn void fail(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* As realloc(3), but fails when there is no memory. */
void *reserve(void *old, size_t size);

#endif
