/* Command lines, words that end with NUL bytes: of runc, for runc-wrapper, and the numbers of userns. */
#define main wrapper
#include "../../native/runc-wrapper/runc-wrapper.c"
#undef main
#define main userns
#include "../../native/userns/userns.c"
#undef main

#include "check.h"

enum { WORDS = 16 };

static void read_numbers(const char *word)
{
	const char *rest = word;
	int descriptor = -1, port = -1;
	if (number(word, ':', 1 << 20, &descriptor, &rest)) {
		check(descriptor >= 0 && descriptor <= 1 << 20 && *rest == ':');
		if (number(rest + 1, '\0', 65535, &port, &rest))
			check(port >= 0 && port <= 65535 && rest == word + strlen(word));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *words[WORDS + 2] = {string_of((const uint8_t *)"runc", 4)};
	int count = 1;
	while (size > 0 && count <= WORDS) {
		size_t second = second_of(data, size);
		words[count] = string_of(data, second);
		read_numbers(words[count++]);
		data += second;
		size -= second;
	}
	const char *bundle = bundle_of(words);
	bool found = !bundle || strcmp(bundle, ".") == 0;
	for (int at = 1; at < count; at++)
		found = found || (bundle >= words[at] && bundle <= words[at] + strlen(words[at]));
	check(found); /* it is the current folder, or a part of a word */
	for (int at = 0; at < count; at++)
		free(words[at]);
	return 0;
}
