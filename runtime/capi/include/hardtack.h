/* The C interface of Hardtack, made by cbindgen: see runtime/capi in the source. Do not edit.
 *
 * Functions that can fail give a HardtackStatus; hardtack_last_error() then says in one sentence
 * what was wrong and what to do. Handles are freed by the function of their kind that ends in
 * _free, which takes NULL too. A bundle may be used from several threads at once, a session from
 * one at a time. No function lets a panic through.
 *
 * Do not use a handle after freeing it, nor anything obtained from it: names, labels, results. The
 * library detects most such mistakes, and handles of the wrong kind, and reports them as errors, but
 * it cannot detect all of them.
 *
 * After fork, the child process may use and free the bundles and sessions of its parent, and make new
 * ones, provided that no other thread was using them when the process was forked. The threads of a
 * session do not exist in the child: there it runs on the calling thread alone, with the same results,
 * and freeing it does not block.
 */

#ifndef HARDTACK_H
#define HARDTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Most dimensions.
#define HARDTACK_MAX_RANK 8

// The size of a dimension that the caller chooses.
#define HARDTACK_ANY UINT64_MAX

// How a call ended.
typedef enum HardtackStatus {
  // Well.
  HARDTACK_STATUS_OK = 0,
  // An argument is NULL, out of range, or no UTF-8.
  HARDTACK_STATUS_ARGUMENT = 1,
  // A file cannot be read.
  HARDTACK_STATUS_FILE = 2,
  // The bundle is damaged, or of another version than this library reads.
  HARDTACK_STATUS_BUNDLE = 3,
  // This build, or this machine, cannot run the model.
  HARDTACK_STATUS_UNSUPPORTED = 4,
  // Inputs or outputs are not those of the model.
  HARDTACK_STATUS_MISMATCH = 5,
  // The model could not be run.
  HARDTACK_STATUS_RUN = 6,
  // A mistake in this library. Free the session, if there is one: its results and kept states are
  // no longer meaningful.
  HARDTACK_STATUS_INTERNAL = 7,
  // The model needs more memory or operations than the limits allow.
  HARDTACK_STATUS_LIMIT = 8,
  // The run was cancelled, or took longer than its limit.
  HARDTACK_STATUS_STOPPED = 9,
} HardtackStatus;

// Types of elements. 0 is none of them, so that one that was forgotten is found.
typedef enum HardtackType {
  HARDTACK_TYPE_BOOL = 1,
  HARDTACK_TYPE_I8 = 2,
  HARDTACK_TYPE_U8 = 3,
  HARDTACK_TYPE_I16 = 4,
  HARDTACK_TYPE_U16 = 5,
  HARDTACK_TYPE_I32 = 6,
  HARDTACK_TYPE_U32 = 7,
  HARDTACK_TYPE_I64 = 8,
  HARDTACK_TYPE_U64 = 9,
  HARDTACK_TYPE_F16 = 10,
  HARDTACK_TYPE_BF16 = 11,
  HARDTACK_TYPE_F32 = 12,
  HARDTACK_TYPE_F64 = 13,
} HardtackType;

// An open bundle.
typedef struct HardtackBundle HardtackBundle;

// Stops the runs of a session from another thread. May be used by several threads at once.
typedef struct HardtackCanceller HardtackCanceller;

// A model made ready for this machine, with what its last run gave.
typedef struct HardtackSession HardtackSession;

// How a session is to run. `hardtack_options` fills it.
typedef struct HardtackOptions {
  // Bytes of this struct, by which a library that knows more settings tells which are there.
  size_t size;
  // Threads for integer programs, at most 1024; 0 is 1. Results do not depend on it.
  uint32_t threads;
  // Whether inputs that an output of the run before feeds may be left out.
  bool keep_state;
  // Instruction set of the integer kernels, such as `neondot`; NULL is the best of this machine.
  const char *isa;
  // The maximum number of bytes that the session may hold: repacked weights, constants, arenas
  // and intermediate values. 0 is 4 GiB. A model that needs more is refused.
  uint64_t memory_limit;
  // The maximum number of element operations of one inference. 0 is 2^41. A model that needs more
  // is refused.
  uint64_t operation_limit;
  // The maximum time of one call that runs the model, in milliseconds; 0 is no maximum. Compared
  // between operations.
  uint64_t run_time_limit;
} HardtackOptions;

// An input or output of a model.
typedef struct HardtackPort {
  // Its name, for as long as the session is there.
  const char *name;
  // A `HardtackType`.
  uint32_t dtype;
  // Number of dimensions.
  uint32_t rank;
  // Dimensions, outermost first; `HARDTACK_ANY` where the caller chooses.
  uint64_t shape[HARDTACK_MAX_RANK];
  // Whether its integers stand for reals: `scale * (integer - zero_point)`.
  bool is_quantized;
  // See `is_quantized`.
  float scale;
  // See `is_quantized`.
  int32_t zero_point;
} HardtackPort;

// A tensor: elements that the caller gives, or that the session holds.
typedef struct HardtackTensor {
  // Name of the input or output; of an input, NULL stands for the one at its place.
  const char *name;
  // A `HardtackType`.
  uint32_t dtype;
  // Number of dimensions. 0 with more than one element: the shape of the input, as the number of
  // elements tells it.
  uint32_t rank;
  // Dimensions, outermost first.
  uint64_t shape[HARDTACK_MAX_RANK];
  // The elements, row by row, at a multiple of their size.
  const void *data;
  // Bytes of the elements.
  size_t bytes;
} HardtackTensor;

// Memory of the caller for the elements of an output.
typedef struct HardtackBuffer {
  // Name of the output; NULL stands for the one at its place.
  const char *name;
  // A `HardtackType`: F32, I8 or U8.
  uint32_t dtype;
  // Where the elements go, at a multiple of their size.
  void *data;
  // Bytes there.
  size_t bytes;
} HardtackBuffer;

// A class that a model found.
typedef struct HardtackClass {
  // Its number.
  size_t index;
  // Its name, for as long as the session is there; NULL where the bundle has none.
  const char *label;
  // Its score, a probability where the model or the bundle makes it one.
  float score;
} HardtackClass;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, such as `0.1.0`.
const char *hardtack_version(void);

// Why the last call of this thread that failed did so: one sentence, for users. Empty where none
// has. It stays until the next call of this thread that fails, and until the thread ends.
const char *hardtack_last_error(void);

// Opens a bundle by mapping its file, which nobody may change in place while it is in use.
//
// @param path   the file
// @param bundle gets the bundle
//
// # Safety
// `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
enum HardtackStatus hardtack_bundle_open(const char *path, struct HardtackBundle **bundle);

// Opens a bundle that was verified when it was installed and that nobody could change since:
// sessions do not compare its weights and constants with their digests, and load faster. Damaged
// weights then give wrong numbers without an error.
//
// @param path   the file
// @param bundle gets the bundle
//
// # Safety
// `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
enum HardtackStatus hardtack_bundle_open_unverified(const char *path,
                                                    struct HardtackBundle **bundle);

// Opens a bundle that lies in memory, by copying it.
//
// @param bytes  its bytes
// @param length how many
// @param bundle gets the bundle
//
// # Safety
// `bytes` is NULL or points to `length` bytes; `bundle` is NULL or can be written.
enum HardtackStatus hardtack_bundle_copy(const uint8_t *bytes,
                                         size_t length,
                                         struct HardtackBundle **bundle);

// Reads the whole bundle and compares every digest: after it was downloaded or copied.
//
// # Safety
// `bundle` is NULL or an open bundle.
enum HardtackStatus hardtack_bundle_verify(const struct HardtackBundle *bundle);

// Tells the 32 bytes of the digest that names the bundle (SHA-256).
//
// # Safety
// `bundle` is NULL or an open bundle; `digest` is NULL or has room for 32 bytes.
enum HardtackStatus hardtack_bundle_digest(const struct HardtackBundle *bundle, uint8_t *digest);

// The name of the model, for as long as the bundle is open; NULL for NULL.
//
// # Safety
// `bundle` is NULL or an open bundle.
const char *hardtack_bundle_name(const struct HardtackBundle *bundle);

// The name of class number `index`, for as long as the bundle is open; NULL where there is none.
//
// # Safety
// `bundle` is NULL or an open bundle.
const char *hardtack_bundle_label(const struct HardtackBundle *bundle, size_t index);

// Frees a bundle. Its sessions remain usable. Does nothing for NULL.
//
// # Safety
// `bundle` is NULL or an open bundle, and is not used any more.
void hardtack_bundle_free(struct HardtackBundle *bundle);

// The usual options: one thread, no kept state, the best instruction set, the default limits.
struct HardtackOptions hardtack_options(void);

// Makes a bundle's model ready for this machine.
//
// @param bundle  the bundle, which may be freed afterwards
// @param options NULL for the usual ones
// @param session gets the session
//
// # Safety
// `bundle` is NULL or an open bundle; `options` is NULL or such a struct, of the size that it says;
// `session` is NULL or can be written.
enum HardtackStatus hardtack_session_new(const struct HardtackBundle *bundle,
                                         const struct HardtackOptions *options,
                                         struct HardtackSession **session);

// Number of inputs; 0 for NULL.
//
// # Safety
// `session` is NULL or a session.
size_t hardtack_session_input_count(const struct HardtackSession *session);

// Number of outputs; 0 for NULL.
//
// # Safety
// `session` is NULL or a session.
size_t hardtack_session_output_count(const struct HardtackSession *session);

// Tells what input number `index` is.
//
// # Safety
// `session` is NULL or a session; `port` is NULL or can be written.
enum HardtackStatus hardtack_session_input(const struct HardtackSession *session,
                                           size_t index,
                                           struct HardtackPort *port);

// Tells what output number `index` is.
//
// # Safety
// `session` is NULL or a session; `port` is NULL or can be written.
enum HardtackStatus hardtack_session_output(const struct HardtackSession *session,
                                            size_t index,
                                            struct HardtackPort *port);

// The instruction set that integer programs use, for as long as the session is there; NULL for
// NULL.
//
// # Safety
// `session` is NULL or a session.
const char *hardtack_session_isa(const struct HardtackSession *session);

// Bytes of memory that integer programs use for activations; 0 for NULL.
//
// # Safety
// `session` is NULL or a session.
size_t hardtack_session_arena_bytes(const struct HardtackSession *session);

// Runs the model. `hardtack_session_result` tells what it gave.
//
// @param inputs its inputs, in any order where they have names
// @param count  how many
//
// # Safety
// `session` is NULL or a session that nobody else uses; `inputs` is NULL or points to `count`
// tensors, whose pointers are good.
enum HardtackStatus hardtack_session_run(struct HardtackSession *session,
                                         const struct HardtackTensor *inputs,
                                         size_t count);

// Tells output number `index` of the last `hardtack_session_run` or `hardtack_session_classify`.
// Its elements stay until the next.
//
// # Safety
// `session` is NULL or a session; `tensor` is NULL or can be written.
enum HardtackStatus hardtack_session_result(const struct HardtackSession *session,
                                            size_t index,
                                            struct HardtackTensor *tensor);

// Runs the model from memory of the caller into memory of the caller, without copies between. For
// inputs and outputs of f32, i8 and u8. A model that is in integers throughout allocates nothing
// from its second run on. Outputs must not share memory with inputs or with each other.
//
// @param inputs       its inputs
// @param input_count  how many
// @param outputs      where outputs go; those that are not there are not given
// @param output_count how many
//
// # Safety
// `session` is NULL or a session that nobody else uses; `inputs` and `outputs` are NULL or point to
// as many, whose pointers are good, and which nobody changes.
enum HardtackStatus hardtack_session_run_into(struct HardtackSession *session,
                                              const struct HardtackTensor *inputs,
                                              size_t input_count,
                                              const struct HardtackBuffer *outputs,
                                              size_t output_count);

// Runs the bundle's own test vectors: whether this machine gives the results that the model gave
// where it was converted.
//
// @param holds gets whether it does
//
// # Safety
// `session` is NULL or a session that nobody else uses; `holds` is NULL or can be written.
enum HardtackStatus hardtack_session_check(struct HardtackSession *session, bool *holds);

// All kept states are zero again.
//
// # Safety
// `session` is NULL or a session that nobody else uses.
enum HardtackStatus hardtack_session_reset(struct HardtackSession *session);

// Frees a session. Does nothing for NULL. Does not block in a child process after `fork`.
//
// # Safety
// `session` is NULL or a session, and is not used any more.
void hardtack_session_free(struct HardtackSession *session);

// Makes what stops the runs of a session. It stays valid after the session was freed.
//
// @param session   the session
// @param canceller gets the canceller
//
// # Safety
// `session` is NULL or a session that nobody uses during the call; `canceller` is NULL or can be
// written.
enum HardtackStatus hardtack_session_canceller(const struct HardtackSession *session,
                                               struct HardtackCanceller **canceller);

// Ends the run in progress with `HARDTACK_STATUS_STOPPED`, and every later one until
// `hardtack_canceller_reset`. A run ends between two operations.
//
// # Safety
// `canceller` is NULL or a canceller.
enum HardtackStatus hardtack_canceller_cancel(const struct HardtackCanceller *canceller);

// Lets the session run again.
//
// # Safety
// `canceller` is NULL or a canceller.
enum HardtackStatus hardtack_canceller_reset(const struct HardtackCanceller *canceller);

// Frees a canceller. Does nothing for NULL.
//
// # Safety
// `canceller` is NULL or a canceller, and is not used any more.
void hardtack_canceller_free(struct HardtackCanceller *canceller);

// From something raw to classes, by the bundle's own pre- and post-processing: pixels
// `[height, width, channels]` of u8, a recording `[samples]`, or an array, as the bundle is made
// for.
//
// @param sample  what to classify; its name does not matter
// @param classes gets the classes with the greatest scores, best first
// @param count   how many at most; gets how many there are
//
// # Safety
// `session` is NULL or a session that nobody else uses; `sample` is NULL or a tensor whose pointers
// are good; `classes` is NULL or has room for `count`; `count` is NULL or can be written.
enum HardtackStatus hardtack_session_classify(struct HardtackSession *session,
                                              const struct HardtackTensor *sample,
                                              struct HardtackClass *classes,
                                              size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HARDTACK_H */
