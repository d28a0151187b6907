/* Ends here, with a sentence. */
#ifndef FAIL_H
#define FAIL_H

enum { OWN_ERROR = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

/* What the sentences begin with; nothing for trials, whose sentences are quoted by others. */
extern const char *prefix;

/* Says what failed, and why by errno, and exits with OWN_ERROR. */
_Noreturn void fail(const char *text, ...) __attribute__((format(printf, 1, 2)));

#endif
