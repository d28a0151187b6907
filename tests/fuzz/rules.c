/*
 * Rules of the interceptor: a file of rules, a NUL byte, a path. Paths in their normal form stay as they are, and no
 * replacement is longer than a path may be.
 */
#define _GNU_SOURCE
#include <stdio.h>

static FILE *open_input(void);
#define fopen(name, mode) open_input()
#include "../../native/interceptor/rules.c"
#undef fopen

#include "check.h"

static char *input;
static size_t input_size;

static FILE *open_input(void)
{
	return fmemopen(input, input_size, "r");
}

static void look_up(const char *path)
{
	char normal[PATH_SIZE], again[PATH_SIZE], to[PATH_SIZE];
	if (rules_match_last(path, to))
		check(strlen(to) < PATH_SIZE);
	if (!rules_normalise("", path, normal))
		return;
	check(normal[0] == '/' && strlen(normal) <= strlen(path) + 1 && !strstr(normal, "//"));
	check(rules_normalise("", normal, again) && strcmp(normal, again) == 0);
	if (rules_match(normal, to))
		check(to[0] == '/' && strlen(to) < PATH_SIZE);
	if (rules_normalise(normal, "x/./y", again))
		check(strcmp(again + strlen(again) - 4, "/x/y") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t second = second_of(data, size);
	char *path = string_of(data + second, size - second);
	input_size = second < size ? second - 1 : size;
	input = copy_of(data, input_size);
	count = 0;
	if (input_size > 0)
		rules_read("rules");
	check(count <= RULES);
	for (size_t i = 0; i < count; i++) {
		check(rules[i].from_length == strlen(rules[i].from) && rules[i].from_length > 0);
		look_up(rules[i].from);
	}
	look_up(path);
	free(input);
	free(path);
	return 0;
}
