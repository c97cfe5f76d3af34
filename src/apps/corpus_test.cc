// A frozen corpus: whole clusters as earlier versions left them, on disks and in the bucket. This version must read
// each of them: coordinator, targets (superblock, table, log, fragments, journals), checkpoints, and of the bucket
// head, manifests, locations and packed objects.
//
// The images are tests/corpus/*.image; tests/corpus/README.md says how one is made. They are never changed.
#include <filesystem>
#include <fstream>

#include "apps/node_test_support.h"
#include "base/checksum.h"

namespace headrace {
namespace {

namespace fs = std::filesystem;

struct ImagePiece {
  uint64_t offset = 0;
  std::string bytes;
  void fields(this auto& self, auto& v) { v(self.offset, self.bytes); }
};
struct ImageFile {  // what lies between the pieces is zeros
  std::string path;
  uint64_t size = 0;
  std::vector<ImagePiece> pieces;
  void fields(this auto& self, auto& v) { v(self.path, self.size, self.pieces); }
};
struct ImageObject {
  std::string key;
  std::string body;
  void fields(this auto& self, auto& v) { v(self.key, self.body); }
};
struct ImageContent {  // of a file in /d
  std::string name;
  uint64_t size = 0;
  uint32_t crc = 0;
  void fields(this auto& self, auto& v) { v(self.name, self.size, self.crc); }
};
struct Image {
  static constexpr uint8_t kFormat = 1;
  std::vector<ImageFile> disk;        // of a node that was stopped
  std::vector<ImageObject> bucket;    // as it was then
  std::vector<ImageObject> released;  // and after a spin-down
  std::vector<ImageContent> contents;
  void fields(this auto& self, auto& v) { v(self.disk, self.bucket, self.released, self.contents); }
};

fs::path corpus() {
  if (const char* named = std::getenv("HEADRACE_CORPUS")) return named;
  for (fs::path at = fs::current_path(); at.has_relative_path(); at = at.parent_path())
    if (fs::exists(at / "tests" / "corpus" / "README.md")) return at / "tests" / "corpus";
  return {};
}

std::vector<fs::path> images() {
  std::vector<fs::path> out;
  if (corpus().empty()) return out;
  for (const auto& entry : fs::directory_iterator(corpus()))
    if (entry.path().extension() == ".image") out.push_back(entry.path());
  std::ranges::sort(out);
  return out;
}

struct CorpusTest : NodeTest {
  Image load(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    Result<Image> image = decode_durable<Image>(bytes);
    EXPECT_TRUE(image.ok()) << path;
    return image.ok() ? *std::move(image) : Image{};
  }
  Task<Result<void>> put_disk(Env env, Image image) {
    for (const ImageFile& file : image.disk) {
      const std::string folder = file.path.substr(0, file.path.rfind('/'));
      HR_CO_TRY(co_await env.disk.make_directories(folder));
      HR_CO_TRY(std::unique_ptr<File> out, co_await env.disk.open(file.path, {.create = true}));
      HR_CO_TRY(co_await out->resize(file.size));
      for (const ImagePiece& piece : file.pieces)
        HR_CO_TRY(co_await out->write(piece.offset, std::vector<Buffer>(1, Buffer::copy_of(bytes_of(piece.bytes)))));
      HR_CO_TRY(co_await out->flush());
      HR_CO_TRY(co_await env.disk.sync_directory(folder));
    }
    co_return Result<void>();
  }
  void put_bucket(const std::vector<ImageObject>& objects) {
    bucket->clear();
    for (const ImageObject& object : objects)
      ASSERT_TRUE(bucket->put(object.key, Buffer::copy_of(bytes_of(object.body)), {}).ok());
  }
  void expect_contents(const Image& image) {
    auto client = start_client(client_machine);
    auto folder = world.run(client->lookup(kRootFile, "d"));
    ASSERT_TRUE(folder.ok()) << folder.error().text();
    EXPECT_GE(image.contents.size(), 5u);
    for (const ImageContent& content : image.contents) {
      const std::string bytes = read_file(*client, folder->id, content.name);
      EXPECT_EQ(bytes.size(), content.size) << content.name << ": " << bytes.substr(0, 100);
      EXPECT_EQ(crc32c(bytes_of(bytes)), content.crc) << content.name;
    }
    // And it goes on from there.
    write_file(*client, folder->id, "new", "written by this version");
    EXPECT_EQ(read_file(*client, folder->id, "new"), "written by this version");
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ImageFile file_of(const std::string& path) {
    ImageFile file;
    file.path = path;
    const Buffer all = node_machine.disk().contents(path);
    file.size = all.size();
    const std::string zeros(kBlock, '\0');
    for (uint64_t at = 0; at < all.size(); at += kBlock) {
      const std::string_view block = all.text().substr(at, kBlock);
      if (block == std::string_view(zeros).substr(0, block.size())) continue;
      if (!file.pieces.empty() && file.pieces.back().offset + file.pieces.back().bytes.size() == at)
        file.pieces.back().bytes += block;
      else
        file.pieces.push_back({at, std::string(block)});
    }
    return file;
  }
  std::vector<ImageObject> objects() {
    std::vector<ImageObject> out;
    for (const auto& [key, object] : bucket->contents()) out.push_back({key, std::string(object.body.text())});
    return out;
  }
};

TEST_F(CorpusTest, EveryImageIsServedFromItsDisks) {
  ASSERT_FALSE(images().empty()) << "tests/corpus is not found from here";
  for (const fs::path& path : images()) {
    SCOPED_TRACE(path.filename());
    const Image image = load(path);
    node_machine.crash(CrashKind::kPower);
    node_machine.disk().wipe();
    put_bucket(image.bucket);
    Result<void> put = world.run(put_disk(node_machine.env(), image));
    ASSERT_TRUE(put.ok()) << put.error().text();
    start_node();
    expect_contents(image);
  }
}

TEST_F(CorpusTest, EveryImageComesBackFromItsBucketAlone) {
  ASSERT_FALSE(images().empty()) << "tests/corpus is not found from here";
  for (const fs::path& path : images()) {
    SCOPED_TRACE(path.filename());
    const Image image = load(path);
    node_machine.crash(CrashKind::kPower);
    node_machine.disk().wipe();
    put_bucket(image.released);
    start_node(true);
    expect_contents(image);
  }
}

// Writes a new image where HEADRACE_WRITE_CORPUS names a file; otherwise it makes one, to see that it can be made.
TEST_F(CorpusTest, AnImageOfThisVersionCanBeMade) {
  NodeProcess* process = &start_node();
  Image image;
  {
    auto client = start_client(client_machine);
    const FileId folder = make_directory(*client, kRootFile, "d").id;
    auto add = [&](const std::string& name, size_t size) {
      const std::string bytes = pattern(size, size + name.size());
      write_file(*client, folder, name, bytes);
      image.contents.push_back({name, size, crc32c(bytes_of(bytes))});
    };
    for (size_t size : {0, 1, 100, 4096, 5000, 20'000}) add("tiered-" + std::to_string(size), size);
    auto pushed = world.run(process->node->push());
    ASSERT_TRUE(pushed.ok()) << pushed.error().text();
    for (size_t size : {3, 4097, 70'000}) add("hot-" + std::to_string(size), size);
    ASSERT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run_until(process->node->stop()));
  node_machine.crash(CrashKind::kProcess);
  for (const std::string& path : node_machine.disk().paths()) image.disk.push_back(file_of(path));
  image.bucket = objects();
  process = &start_node();
  auto down = world.run(process->node->tier().spin_down());
  ASSERT_TRUE(down.ok()) << down.error().text();
  image.released = objects();
  const std::string bytes = encode_durable(image);
  EXPECT_GT(image.disk.size(), 6u);
  EXPECT_GT(image.released.size(), 2u);
  if (const char* path = std::getenv("HEADRACE_WRITE_CORPUS")) {
    ASSERT_FALSE(fs::exists(path)) << "an image is never changed";
    std::ofstream out(path, std::ios::binary);
    out << bytes;
    ASSERT_TRUE(out.flush().good());
  }
}

}  // namespace
}  // namespace headrace
