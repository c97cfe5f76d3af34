#include "apps/bench_client.h"

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "client/client.h"
#include "runtime/scope.h"
#include "runtime/uring/reactor.h"

namespace headrace {
namespace {

constexpr int kInFlight = 64;
constexpr int kReadsInFlight = 32;
constexpr int kDirectories = 8;
constexpr uint64_t kFilesPerDirectory = 1000;

// What several workers of one measurement share. The measuring frame owns it until all have ended.
struct Work {
  Env env;
  Client* client = nullptr;
  std::vector<FileId> directories;
  uint64_t next = 0;
  uint64_t total = 0;
  Buffer data;
  OpenFileRef file;
  std::optional<Error> error;

  [[nodiscard]] std::optional<uint64_t> take() { return next < total ? std::optional(next++) : std::nullopt; }
  [[nodiscard]] FileId directory_of(uint64_t n) const { return directories[n % directories.size()]; }
  // False ends the worker, and soon all others.
  template <class T>
  bool check(const Result<T>& result) {
    if (result.ok()) return true;
    if (!error) error = result.error();
    next = total;
    return false;
  }
};

using Worker = Task<void> (*)(Work* work);

Task<void> make_files(Work* work) {
  while (auto n = work->take()) {
    MakeOptions options{.type = FileType::kFile, .mode = 0644};
    Result<Attributes> made =
        co_await work->client->make(work->directory_of(*n), "f" + std::to_string(*n), options, {});
    if (!work->check(made)) co_return;
  }
}

Task<void> ingest_files(Work* work) {
  while (auto n = work->take()) {
    OpenMode mode{.read = false, .write = true};
    Result<FileSystem::Created> made =
        co_await work->client->create(work->directory_of(*n), "f" + std::to_string(*n), 0644, mode, {});
    if (!work->check(made)) co_return;
    Result<uint64_t> written = co_await work->client->write(made->file, 0, work->data);
    if (!work->check(written)) co_return;
    Result<void> closed = co_await work->client->close(std::move(made->file));
    if (!work->check(closed)) co_return;
  }
}

Task<void> write_pieces(Work* work) {
  while (auto n = work->take()) {
    // A buffer of its own, as a program's write is: the client may keep it.
    Result<uint64_t> written =
        co_await work->client->write(work->file, *n * work->data.size(), Buffer::copy_of(work->data.view()));
    if (!work->check(written)) co_return;
  }
}

Task<void> read_pieces(Work* work) {
  while (auto n = work->take()) {
    Result<std::vector<Buffer>> got = co_await work->client->read(work->file, *n * kMiB, kMiB);
    if (!work->check(got)) co_return;
  }
}

Task<void> read_anywhere(Work* work) {
  while (work->take()) {
    const uint64_t block = work->env.random.below(kBenchStream / kBlock);
    Result<std::vector<Buffer>> got = co_await work->client->read(work->file, block * kBlock, kBlock);
    if (!work->check(got)) co_return;
  }
}

// Seconds that `workers` of them took.
Task<Result<double>> run_workers(Work* work, Worker worker, int workers) {
  const Nanos start = work->env.clock.now();
  Scope scope;
  for (int i = 0; i < workers; ++i) scope.spawn(worker(work));
  co_await scope.join();
  if (work->error) co_return *work->error;
  co_return (work->env.clock.now() - start).seconds();
}

Task<Result<std::vector<FileId>>> make_directories(Client* client, std::string prefix, uint64_t count) {
  std::vector<FileId> out;
  for (uint64_t i = 0; i < count; ++i) {
    MakeOptions options{.type = FileType::kDirectory, .mode = 0755};
    HR_CO_TRY(Attributes made, co_await client->make(kRootFile, prefix + "-" + std::to_string(i), options, {}));
    out.push_back(made.id);
  }
  co_return out;
}

Buffer noise(Random& random, uint64_t size) {
  Buffer out = Buffer::allocate(size);
  for (uint64_t i = 0; i < size; i += 8) {
    const uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, sizeof word);
  }
  return out;
}

using Measure = std::function<Task<Result<Measured>>(Env env, Client* client)>;

// What a call that returned says: with kDurable, that names and attributes are at the partition.
enum class Answers : uint8_t { kDurable, kGranted };

Task<void> with_client(Env env, std::string node, Answers answers, const Measure* measure, Result<Measured>* out) {
  ClientOptions options;
  options.directory_write_grants = answers == Answers::kGranted;
  options.nodes = {std::move(node)};
  Result<std::unique_ptr<Client>> client = co_await Client::start(env, std::move(options));
  if (!client.ok()) {
    *out = client.error();
    co_return;
  }
  *out = co_await (*measure)(env, client->get());
  Result<void> ended = co_await (*client)->shut_down();
  if (!ended.ok() && out->ok()) *out = ended.error();
}

// One client's life around one measurement.
Result<Measured> native(const std::string& node, const Measure& measure, Answers answers = Answers::kGranted) {
  HR_TRY(std::unique_ptr<Reactor> reactor, Reactor::create());
  Result<Measured> out = Error(Code::kIo, "not measured");
  reactor->run(with_client(reactor->env(), node, answers, &measure, &out));
  return out;
}

Task<Result<Measured>> creates(Env env, Client* client, std::string name, int in_flight, uint64_t files) {
  Work work{.env = env, .client = client, .total = files};
  HR_CO_TRY(work.directories, co_await make_directories(client, std::move(name), kDirectories));
  HR_CO_TRY(double took, co_await run_workers(&work, make_files, in_flight));
  co_return Measured{static_cast<double>(files) / took, files};
}

Task<Result<Measured>> ingest(Env env, Client* client, std::string name, uint64_t files) {
  Work work{.env = env, .client = client, .total = files, .data = noise(env.random, kBlock)};
  HR_CO_TRY(work.directories, co_await make_directories(client, std::move(name), kDirectories));
  const Nanos start = env.clock.now();
  HR_CO_TRY(co_await run_workers(&work, ingest_files, kInFlight));
  HR_CO_TRY(co_await client->sync_all());
  co_return Measured{static_cast<double>(files) / (env.clock.now() - start).seconds(), files};
}

Measured stream_rate(double seconds) {
  return {static_cast<double>(kBenchStream) / seconds, kBenchStream / kBlock};
}

Task<Result<Measured>> write_stream(Env env, Client* client, std::string name) {
  Work work{.env = env, .client = client, .total = kBenchStream / kMiB, .data = noise(env.random, kMiB)};
  HR_CO_TRY(FileSystem::Created made, co_await client->create(kRootFile, std::move(name), 0644, {.write = true}, {}));
  work.file = made.file;
  const Nanos start = env.clock.now();
  HR_CO_TRY(co_await run_workers(&work, write_pieces, 4));
  HR_CO_TRY(co_await client->sync(made.attributes.id));
  const Nanos took = env.clock.now() - start;
  work.file.reset();
  HR_CO_TRY(co_await client->close(std::move(made.file)));
  co_return stream_rate(took.seconds());
}

Task<Result<OpenFileRef>> open_for_reading(Client* client, std::string name, bool direct) {
  HR_CO_TRY(Attributes found, co_await client->lookup(kRootFile, std::move(name)));
  HR_CO_TRY(OpenFileRef file, co_await client->open(found.id, {.direct = direct}));
  co_return file;
}

Task<Result<Measured>> read_stream(Env env, Client* client, std::string name) {
  Work work{.env = env, .client = client, .total = kBenchStream / kMiB};
  HR_CO_TRY(work.file, co_await open_for_reading(client, std::move(name), false));
  HR_CO_TRY(double took, co_await run_workers(&work, read_pieces, 1));
  co_return stream_rate(took);
}

Task<Result<Measured>> random_read(Env env, Client* client, std::string name, uint64_t reads) {
  Work work{.env = env, .client = client, .total = reads};
  HR_CO_TRY(work.file, co_await open_for_reading(client, std::move(name), true));
  HR_CO_TRY(double took, co_await run_workers(&work, read_anywhere, kReadsInFlight));
  co_return Measured{static_cast<double>(reads) / took, reads};
}

Task<Result<Measured>> many_files(Env env, Client* client, std::string name, uint64_t files) {
  Work work{.env = env, .client = client, .total = files};
  HR_CO_TRY(work.directories, co_await make_directories(client, std::move(name), files / kFilesPerDirectory + 1));
  HR_CO_TRY(double took, co_await run_workers(&work, make_files, kInFlight));
  co_return Measured{static_cast<double>(files) / took, files};
}

}  // namespace

Result<Measured> measure_creates(const std::string& node, const std::string& name, int in_flight, uint64_t files) {
  return native(
      node, [&](Env env, Client* client) { return creates(env, client, name, in_flight, files); }, Answers::kDurable);
}

Result<Measured> measure_ingest(const std::string& node, const std::string& name, uint64_t files) {
  return native(node, [&](Env env, Client* client) { return ingest(env, client, name, files); });
}

Result<Measured> measure_write(const std::string& node, const std::string& name) {
  return native(node, [&](Env env, Client* client) { return write_stream(env, client, name); });
}

Result<Measured> measure_read(const std::string& node, const std::string& name) {
  return native(node, [&](Env env, Client* client) { return read_stream(env, client, name); });
}

Result<Measured> measure_random_read(const std::string& node, const std::string& name, uint64_t reads) {
  return native(node, [&](Env env, Client* client) { return random_read(env, client, name, reads); });
}

Result<void> make_many_files(const std::string& node, const std::string& name, uint64_t files) {
  HR_TRY(native(node, [&](Env env, Client* client) { return many_files(env, client, name, files); }));
  return {};
}

}  // namespace headrace
