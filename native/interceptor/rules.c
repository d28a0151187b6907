#define _GNU_SOURCE
#include "rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

enum { RULES = 64 };
enum kind { PREFIX, WHOLE, LAST };

static struct rule {
	enum kind kind;
	char from[PATH_SIZE], to[PATH_SIZE];
	size_t from_length;
} rules[RULES];
static size_t count;

static bool mistake(const char *file, unsigned line, const char *text)
{
	fprintf(stderr, "interceptor: %s:%u: %s\n", file, line, text);
	return false;
}

static bool is_plain(const char *path)
{
	char normal[PATH_SIZE];
	if (!rules_normalise("", path, normal))
		return false;
	size_t length = strlen(normal);
	if (length > 1 && path[strlen(path) - 1] == '/')
		strcpy(normal + length, "/");
	return strcmp(path, normal) == 0;
}

/* "." and ".." name no file of their own: what is meant depends on the folder. */
static bool is_name(const char *name)
{
	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool add(const char *file, unsigned line, const char *from, const char *to)
{
	struct rule *rule = &rules[count];
	if (count == RULES)
		return mistake(file, line, "too many rules, 64 are the most");
	if (strlen(from) >= PATH_SIZE || strlen(to) >= PATH_SIZE)
		return mistake(file, line, "a path is too long");
	if (strncmp(from, "*/", 2) == 0) {
		rule->kind = LAST;
		from += 2;
		if (*from == '\0' || strchr(from, '/') || strchr(to, '/'))
			return mistake(file, line, "a rule for last components is \"*/NAME NAME\"");
		if (!is_name(from) || !is_name(to))
			return mistake(file, line, "a name is \".\" or \"..\"");
	} else if (from[0] != '/' || to[0] != '/') {
		return mistake(file, line, "a path does not start with a slash");
	} else if (!is_plain(from) || !is_plain(to)) {
		return mistake(file, line, "a path has an empty part, \".\" or \"..\"");
	} else {
		bool folder = from[strlen(from) - 1] == '/';
		if (folder != (to[strlen(to) - 1] == '/'))
			return mistake(file, line, "both paths end with a slash, or neither");
		rule->kind = folder ? PREFIX : WHOLE;
	}
	strcpy(rule->from, from);
	strcpy(rule->to, to);
	rule->from_length = strlen(from);
	count++;
	return true;
}

bool rules_read(const char *file)
{
	char *text = NULL;
	size_t room = 0;
	ssize_t length;
	FILE *in = fopen(file, "re");
	bool good = true;
	if (!in) {
		fprintf(stderr, "interceptor: %s: %s\n", file, strerror(errno));
		return false;
	}
	for (unsigned line = 1; (length = getline(&text, &room, in)) >= 0; line++) {
		if (strlen(text) != (size_t)length) {
			good = mistake(file, line, "the line has a NUL byte");
			continue;
		}
		char *rest, *from = strtok_r(text, " \t\r\n", &rest);
		if (!from || from[0] == '#')
			continue;
		char *to = strtok_r(NULL, " \t\r\n", &rest);
		if (!to || strtok_r(NULL, " \t\r\n", &rest))
			good = mistake(file, line, "a rule is two paths");
		else if (!add(file, line, from, to))
			good = false;
	}
	free(text);
	if (ferror(in)) {
		fprintf(stderr, "interceptor: %s: cannot be read\n", file);
		good = false;
	}
	fclose(in);
	return good;
}

static bool join(const char *first, size_t length, const char *second, char result[PATH_SIZE])
{
	size_t rest = strlen(second);
	if (length + rest >= PATH_SIZE)
		return false;
	memcpy(result, first, length);
	memcpy(result + length, second, rest + 1);
	return true;
}

bool rules_match(const char *path, char replacement[PATH_SIZE])
{
	for (size_t i = 0; i < count; i++) {
		const struct rule *rule = &rules[i];
		if (rule->kind == WHOLE && strcmp(path, rule->from) == 0)
			return join(rule->to, strlen(rule->to), "", replacement);
		size_t length = rule->from_length;
		if (rule->kind == PREFIX && strncmp(path, rule->from, length) == 0 && path[length])
			return join(rule->to, strlen(rule->to), path + length, replacement);
	}
	return false;
}

bool rules_match_last(const char *path, char replacement[PATH_SIZE])
{
	const char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path;
	for (size_t i = 0; i < count; i++)
		if (rules[i].kind == LAST && strcmp(last, rules[i].from) == 0)
			return join(path, (size_t)(last - path), rules[i].to, replacement);
	return false;
}

static bool append(const char *path, char result[PATH_SIZE], size_t *length)
{
	while (*path) {
		size_t part = strcspn(path, "/");
		if (part == 2 && path[0] == '.' && path[1] == '.')
			return false;
		if (part > 0 && !(part == 1 && path[0] == '.')) {
			if (*length + 1 + part >= PATH_SIZE)
				return false;
			result[(*length)++] = '/';
			memcpy(result + *length, path, part);
			*length += part;
		}
		path += part + (path[part] == '/');
	}
	return true;
}

bool rules_normalise(const char *folder, const char *path, char result[PATH_SIZE])
{
	size_t length = 0;
	if (!append(folder, result, &length) || !append(path, result, &length))
		return false;
	if (length == 0)
		result[length++] = '/';
	result[length] = '\0';
	return true;
}
