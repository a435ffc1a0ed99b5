// Runs an integer bundle from C++ directly on the program's memory, without allocation per
// inference. Handles are freed automatically, and errors are exceptions.
//
// usage: integers BUNDLE
//
// Convert the bundle with `hardtack convert --int8 --integer-io`.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

#include <hardtack.h>

namespace {

void must(HardtackStatus status) {
  if (status != HARDTACK_STATUS_OK) throw std::runtime_error(hardtack_last_error());
}

struct Free {
  void operator()(HardtackBundle *bundle) const { hardtack_bundle_free(bundle); }
  void operator()(HardtackSession *session) const { hardtack_session_free(session); }
};

std::unique_ptr<HardtackBundle, Free> open(const char *path) {
  HardtackBundle *bundle = nullptr;
  must(hardtack_bundle_open(path, &bundle));
  return std::unique_ptr<HardtackBundle, Free>(bundle);
}

std::unique_ptr<HardtackSession, Free> ready(const HardtackBundle &bundle) {
  HardtackOptions options = hardtack_options();
  options.threads = 2;
  HardtackSession *session = nullptr;
  must(hardtack_session_new(&bundle, &options, &session));
  return std::unique_ptr<HardtackSession, Free>(session);
}

// Returns the number of elements of one sample.
std::size_t elements(const HardtackPort &port) {
  std::size_t count = 1;
  for (std::uint32_t axis = 0; axis < port.rank; ++axis) {
    if (port.shape[axis] != HARDTACK_ANY) count *= port.shape[axis];
  }
  return count;
}

int run(const char *path) {
  // The bundle is freed right away: the session keeps the data that it needs.
  auto session = ready(*open(path));
  HardtackPort input, output;
  must(hardtack_session_input(session.get(), 0, &input));
  must(hardtack_session_output(session.get(), 0, &output));
  if (input.dtype != HARDTACK_TYPE_I8 || output.dtype != HARDTACK_TYPE_I8) {
    throw std::runtime_error("inputs and outputs are float; convert the model with --integer-io");
  }
  std::vector<std::int8_t> given(elements(input)), got(elements(output));
  for (std::size_t index = 0; index < given.size(); ++index) {
    given[index] = static_cast<std::int8_t>(index * 7 % 256 - 128);
  }
  HardtackTensor from{};
  from.dtype = HARDTACK_TYPE_I8;
  from.data = given.data();
  from.bytes = given.size();
  HardtackBuffer to{};
  to.dtype = HARDTACK_TYPE_I8;
  to.data = got.data();
  to.bytes = got.size();
  for (int times = 0; times < 3; ++times) {
    must(hardtack_session_run_into(session.get(), &from, 1, &to, 1));
  }
  std::printf("%s:", output.name);
  for (std::int8_t integer : got) {
    std::printf(" %.3f", output.scale * static_cast<float>(integer - output.zero_point));
  }
  std::printf("\n");
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: integers BUNDLE\n");
    return 2;
  }
  try {
    return run(argv[1]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
