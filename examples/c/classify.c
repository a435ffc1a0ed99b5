/* Classifies raw bytes: opens a bundle, runs its golden vectors to check that this machine computes
 * the results recorded at conversion, and classifies a file with the bundle's preprocessing
 * and postprocessing.
 *
 * usage: classify BUNDLE FILE
 *
 * FILE holds the elements of one sample as 8-bit integers, such as pixels. */
#include <stdio.h>
#include <stdlib.h>

#include <hardtack.h>

enum { BEST = 3, LARGEST = 1 << 24 };

/* Exits with the error message if a call failed. */
static void must(HardtackStatus status) {
  if (status != HARDTACK_STATUS_OK) {
    fprintf(stderr, "%s\n", hardtack_last_error());
    exit(1);
  }
}

static size_t read_file(const char *path, void *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(1);
  }
  size_t length = fread(bytes, 1, LARGEST, file);
  fclose(file);
  return length;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: classify BUNDLE FILE\n");
    return 2;
  }
  HardtackBundle *bundle;
  must(hardtack_bundle_open(argv[1], &bundle));
  must(hardtack_bundle_verify(bundle));
  HardtackSession *session;
  must(hardtack_session_new(bundle, NULL, &session));
  printf("%s, Hardtack %s, %s\n", hardtack_bundle_name(bundle), hardtack_version(),
         hardtack_session_isa(session));

  bool holds;
  must(hardtack_session_check(session, &holds));
  printf("golden vectors %s\n", holds ? "match" : "DO NOT MATCH");

  /* The sample has the shape of the input without the batch dimension, and one byte per element. */
  HardtackPort input;
  must(hardtack_session_input(session, 0, &input));
  HardtackTensor sample = {.dtype = HARDTACK_TYPE_I8};
  void *bytes = malloc(LARGEST);
  sample.data = bytes;
  sample.bytes = read_file(argv[2], bytes);
  for (uint32_t axis = 1; axis < input.rank; ++axis) sample.shape[sample.rank++] = input.shape[axis];

  HardtackClass classes[BEST];
  size_t count = BEST;
  must(hardtack_session_classify(session, &sample, classes, &count));
  for (size_t place = 0; place < count; ++place) {
    const HardtackClass *class = &classes[place];
    printf("%5.1f %%  %s\n", 100 * class->score, class->label ? class->label : "?");
  }
  free(bytes);
  hardtack_session_free(session);
  hardtack_bundle_free(bundle);
  return holds ? 0 : 1;
}
