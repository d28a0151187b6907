/* Rules: which paths are read elsewhere. */
#ifndef RULES_H
#define RULES_H

#include <stdbool.h>
#include <stddef.h>

enum { PATH_SIZE = 4096 }; /* PATH_MAX of Linux, with the final NUL */

/* Reads a file of rules. Prints a sentence for each mistake, with file and line; false if there was one. */
bool rules_read(const char *file);

/*
 * Finds the replacement of an absolute path without "." and "" parts (rules_normalise). False if no rule
 * names the path. The replacement may not exist.
 */
bool rules_match(const char *path, char replacement[PATH_SIZE]);

/*
 * The same for the rules of last components: changes only what follows the last slash of any path.
 */
bool rules_match_last(const char *path, char replacement[PATH_SIZE]);

/*
 * Joins folder (absolute, or "" for an absolute path) and path, leaving out empty parts and ".". False if
 * the result does not fit or if a part is "..": what that means depends on symbolic links.
 */
bool rules_normalise(const char *folder, const char *path, char result[PATH_SIZE]);

#endif
