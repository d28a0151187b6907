/*
 * runc-wrapper: runs runc on a kernel without cgroup namespaces.
 *
 * Before create, run and restore it takes the entries of type "cgroup" out of .linux.namespaces in the bundle's
 * config.json; every other byte of the file stays. Then it becomes runc, so arguments, standard files, exit status and
 * signals are runc's own. The program is that of the environment variable RUNC_WRAPPER_RUNC, /usr/bin/runc if it is not
 * set. A config.json that is not JSON is left as it is: runc says what is wrong with it.
 *
 * Exit status: runc's; 127 if runc cannot be executed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef RUNC
#define RUNC "/usr/bin/runc"
#endif

enum { DEEPEST = 256 };

/* --- JSON (RFC 8259), scanned in place --- */

struct span {
	const char *start, *end;
};

/* What is left to scan; bad once something is not JSON. */
struct scanner {
	const char *at, *end;
	unsigned depth;
	bool bad;
};

/* A member of an object or an element of an array; key is empty for an element. */
typedef void visit(struct scanner *scanner, struct span key, void *context);

static void scan_value(struct scanner *scanner);

static void skip_space(struct scanner *scanner)
{
	while (scanner->at < scanner->end && strchr(" \t\n\r", *scanner->at) && *scanner->at)
		scanner->at++;
}

static bool take(struct scanner *scanner, char wanted)
{
	skip_space(scanner);
	if (scanner->bad || scanner->at == scanner->end || *scanner->at != wanted)
		return false;
	scanner->at++;
	return true;
}

static struct span scan_string(struct scanner *scanner)
{
	struct span text = {NULL, NULL};
	if (!take(scanner, '"')) {
		scanner->bad = true;
		return text;
	}
	text.start = scanner->at;
	while (scanner->at < scanner->end && *scanner->at != '"')
		scanner->at += *scanner->at == '\\' ? 2 : 1;
	if (scanner->at >= scanner->end) {
		scanner->bad = true;
		return text;
	}
	text.end = scanner->at++;
	return text;
}

static void scan_members(struct scanner *scanner, char close, visit *each, void *context)
{
	scanner->at++; /* the opening bracket */
	if (++scanner->depth > DEEPEST)
		scanner->bad = true;
	if (!take(scanner, close)) {
		do {
			struct span key = {NULL, NULL};
			if (close == '}') {
				key = scan_string(scanner);
				if (!take(scanner, ':'))
					scanner->bad = true;
			}
			skip_space(scanner);
			if (scanner->bad)
				return;
			if (each)
				each(scanner, key, context);
			else
				scan_value(scanner);
		} while (take(scanner, ','));
		if (!take(scanner, close))
			scanner->bad = true;
	}
	scanner->depth--;
}

/* Scans a value; the members of an object or array of the wanted kind are given to each. */
static void scan(struct scanner *scanner, char wanted, visit *each, void *context)
{
	skip_space(scanner);
	if (scanner->bad || scanner->at == scanner->end) {
		scanner->bad = true;
		return;
	}
	char first = *scanner->at;
	if (first == '{' || first == '[') {
		scan_members(scanner, first == '{' ? '}' : ']', first == wanted ? each : NULL, context);
	} else if (first == '"') {
		scan_string(scanner);
	} else {
		const char *start = scanner->at;
		while (scanner->at < scanner->end && (*scanner->at == '-' || *scanner->at == '+' || *scanner->at == '.' ||
						      (*scanner->at >= '0' && *scanner->at <= '9') ||
						      (*scanner->at >= 'A' && *scanner->at <= 'Z') ||
						      (*scanner->at >= 'a' && *scanner->at <= 'z')))
			scanner->at++;
		if (scanner->at == start)
			scanner->bad = true;
	}
}

static void scan_value(struct scanner *scanner)
{
	scan(scanner, '\0', NULL, NULL);
}

/* Compares what a string's text stands for, escapes and all, with an ASCII word. */
static bool is(struct span text, const char *word)
{
	for (const char *at = text.start; at < text.end; word++) {
		unsigned code = (unsigned char)*at++;
		if (code == '\\') {
			char escape = *at++;
			char digits[5] = "";
			static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
			const char *known = strchr(from, escape);
			if (escape == 'u') {
				if (text.end - at < 4)
					return false;
				memcpy(digits, at, 4);
				code = (unsigned)strtoul(digits, NULL, 16);
				at += 4;
			} else {
				code = known ? (unsigned char)to[known - from] : (unsigned char)escape;
			}
		}
		if (!*word || code != (unsigned char)*word)
			return false;
	}
	return !*word;
}

/* --- the edit --- */

/* The file anew: what was before stays, up to copied. */
struct edit {
	char *out;
	size_t length;
	const char *copied;
	bool changed;
};

static void copy(struct edit *edit, const char *from, const char *to)
{
	memcpy(edit->out + edit->length, from, (size_t)(to - from));
	edit->length += (size_t)(to - from);
}

static void visit_namespace(struct scanner *scanner, struct span key, void *context)
{
	bool *unwanted = context;
	skip_space(scanner);
	struct scanner value = *scanner;
	scan_value(scanner);
	if (!scanner->bad && is(key, "type")) /* of two, the last counts */
		*unwanted = *value.at == '"' && is(scan_string(&value), "cgroup");
}

/* The elements of a list of namespaces: kept ones with what was before each of them. */
struct list {
	struct edit *edit;
	const char *previous; /* the end of the element before */
	bool any;             /* one was kept */
};

static void visit_element(struct scanner *scanner, struct span key, void *context)
{
	struct list *list = context;
	bool unwanted = false;
	const char *start = scanner->at;
	(void)key;
	scan(scanner, '{', visit_namespace, &unwanted);
	if (scanner->bad)
		return;
	if (!list->previous)
		copy(list->edit, list->edit->copied, start);
	if (unwanted) {
		list->edit->changed = true;
	} else {
		if (list->any)
			copy(list->edit, list->previous, start);
		copy(list->edit, start, scanner->at);
		list->any = true;
	}
	list->previous = list->edit->copied = scanner->at;
}

static void visit_linux(struct scanner *scanner, struct span key, void *context)
{
	struct list list = {context, NULL, false};
	if (is(key, "namespaces"))
		scan(scanner, '[', visit_element, &list);
	else
		scan_value(scanner);
}

static void visit_root(struct scanner *scanner, struct span key, void *context)
{
	if (is(key, "linux"))
		scan(scanner, '{', visit_linux, context);
	else
		scan_value(scanner);
}

/* Fills edit->out, which has room for size bytes; false if text is not JSON or has nothing to take out. */
static bool without_cgroup_namespaces(const char *text, size_t size, struct edit *edit)
{
	struct scanner scanner = {text, text + size, 0, false};
	edit->copied = text;
	scan(&scanner, '{', visit_root, edit);
	skip_space(&scanner);
	if (scanner.bad || scanner.at != scanner.end || !edit->changed)
		return false;
	copy(edit, edit->copied, text + size);
	return true;
}

/* --- the file --- */

static bool write_all(int file, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t done = write(file, data, size);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		data += done;
		size -= (size_t)done;
	}
	return true;
}

/* Puts a file with the same owner and mode in the place of name. */
static bool replace(int folder, const char *name, const struct stat *old, const char *data, size_t size)
{
	char temporary[64];
	snprintf(temporary, sizeof temporary, ".%s.%ld", name, (long)getpid());
	int file = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0)
		return false;
	bool good = write_all(file, data, size);
	good = (fchown(file, old->st_uid, old->st_gid) == 0 || geteuid() != 0) && good;
	good = fchmod(file, old->st_mode & 07777) == 0 && good;
	good = close(file) == 0 && good;
	good = good && renameat(folder, temporary, folder, name) == 0;
	if (!good) {
		int error = errno;
		unlinkat(folder, temporary, 0);
		errno = error;
	}
	return good;
}

static char *read_all(int file, size_t size)
{
	char *text = malloc(size + 1);
	size_t length = 0;
	while (text && length < size) {
		ssize_t got = read(file, text + length, size - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			free(text);
			return NULL;
		}
		length += (size_t)got;
	}
	return text;
}

/* What is wrong with the file is for runc to say; only an edit that cannot be written is told here. */
static void edit_bundle(const char *bundle)
{
	static const char name[] = "config.json";
	struct stat status;
	int folder = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int file = folder < 0 ? -1 : openat(folder, name, O_RDONLY | O_CLOEXEC);
	if (file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode)) {
		size_t size = (size_t)status.st_size;
		char *text = read_all(file, size);
		struct edit edit = {malloc(size + 1), 0, NULL, false};
		if (text && edit.out && without_cgroup_namespaces(text, size, &edit) &&
		    !replace(folder, name, &status, edit.out, edit.length))
			fprintf(stderr, "runc-wrapper: %s/%s: %s\n", bundle, name, strerror(errno));
		free(edit.out);
		free(text);
	}
	if (file >= 0)
		close(file);
	if (folder >= 0)
		close(folder);
}

/* --- runc's command line --- */

/* The value of an option in words[at], "-NAME VALUE" or "-NAME=VALUE" with one hyphen or two; NULL if it is another. */
static const char *value_of(char **words, int at, const char *name, bool *two_words)
{
	const char *word = words[at];
	size_t length = strlen(name);
	word += *word == '-';
	word += *word == '-';
	if (word == words[at] || strncmp(word, name, length) != 0)
		return NULL;
	*two_words = word[length] == '\0';
	if (*two_words)
		return words[at + 1];
	return word[length] == '=' ? word + length + 1 : NULL;
}

/* The bundle of a command that reads one; NULL if it is another command. */
static const char *bundle_of(char **words)
{
	static const char *const with_value[] = {"log", "log-format", "root", "criu", "rootless"};
	bool two_words;
	int at = 1;
	while (words[at] && words[at][0] == '-') {
		two_words = false;
		for (size_t i = 0; i < sizeof with_value / sizeof *with_value; i++)
			if (value_of(words, at, with_value[i], &two_words))
				break;
		at += two_words && words[at + 1] ? 2 : 1;
	}
	if (!words[at] || (strcmp(words[at], "create") != 0 && strcmp(words[at], "run") != 0 && strcmp(words[at], "restore") != 0))
		return NULL;
	const char *bundle = ".";
	for (at++; words[at]; at++)
		for (int name = 0; name < 2; name++) {
			const char *found = value_of(words, at, name ? "b" : "bundle", &two_words);
			if (found)
				bundle = found;
		}
	return bundle;
}

int main(int count, char **words)
{
	const char *runc = getenv("RUNC_WRAPPER_RUNC");
	if (!runc || !*runc)
		runc = RUNC;
	const char *bundle = count > 1 ? bundle_of(words) : NULL;
	if (bundle)
		edit_bundle(bundle);
	execv(runc, words);
	fprintf(stderr, "runc-wrapper: %s: %s\n", runc, strerror(errno));
	return 127;
}
