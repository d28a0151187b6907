/* Options of AddressSanitizer for our programs: tests start them with no environment. See __asan_default_options(3). */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:abort_on_error=0:exitcode=99"; /* leaks: programs end by execve(2), where no one looks */
}
