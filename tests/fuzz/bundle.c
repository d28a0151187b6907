/* The JSON scanner of runc-wrapper: what it makes of a config.json is JSON again, shorter, and nothing is left to do. */
#define main wrapper
#include "../../native/runc-wrapper/runc-wrapper.c"
#undef main

#include "check.h"

static bool is_json(const char *text, size_t size)
{
	struct scanner scanner = {text, text + size, 0, false};
	scan_value(&scanner);
	skip_space(&scanner);
	return !scanner.bad && scanner.at == scanner.end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = copy_of(data, size);
	struct edit edit = {copy_of(data, size), 0, NULL, false};
	if (without_cgroup_namespaces(text, size, &edit)) {
		char *out = copy_of((const uint8_t *)edit.out, edit.length);
		struct edit again = {copy_of(data, size), 0, NULL, false};
		check(is_json(text, size) && edit.length < size);
		check(is_json(out, edit.length));
		check(!without_cgroup_namespaces(out, edit.length, &again));
		free(again.out);
		free(out);
	}
	free(edit.out);
	free(text);
	return 0;
}
