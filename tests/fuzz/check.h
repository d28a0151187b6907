/* What every fuzz target has: an end that shows. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A property that does not hold is a finding, as what a sanitizer sees. */
static inline void check(int holds)
{
	if (!holds)
		abort();
}

/* A copy of exactly so many bytes: AddressSanitizer sees a look at the one behind them. */
static inline char *copy_of(const uint8_t *data, size_t size)
{
	char *made = malloc(size ? size : 1);
	check(made != NULL);
	if (size)
		memcpy(made, data, size);
	return made;
}

/* The same as a string: what is behind a NUL byte is not seen. */
static inline char *string_of(const uint8_t *data, size_t size)
{
	char *made = malloc(size + 1);
	check(made != NULL);
	if (size)
		memcpy(made, data, size);
	made[size] = '\0';
	return made;
}

/* Where the second part of an input begins: behind the first NUL byte. */
static inline size_t second_of(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
	return end ? (size_t)(end - data) + 1 : size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
