// Of every test with an HttpServer. The library is not instrumented: what its threads hand to each other looks like a
// race.
extern "C" const char* __tsan_default_suppressions() {
  return "race:libcpp-httplib";
}
