/* What the cases share, and those of odd.c. */
#ifndef TARGET_H
#define TARGET_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PAGE = 4096 };

extern const char *folder, *self; /* the words of the command line */
extern char named[PAGE];          /* FOLDER/named/file */

_Noreturn void wrong(const char *text, ...);
bool holds(int file, const char *expected); /* and closes it */
void expect_prepared(const char *path, const char *where);
char *pages(size_t count);
void await(pid_t pid, const char *where);

void case_turns(void);
void case_storm(void);
void case_replaced(void);
void case_unmap(void);
void case_filter(void);
void case_slash(void);
void case_upper_half(void);
void case_chroot(void);
void case_mount(void);
void case_vfork(void);

/* Executes the words in a PID namespace whose /proc is still that of the one around it; exits as they do. */
_Noreturn void in_namespace(char **words);

#endif
