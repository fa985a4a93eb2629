/* A TFLite external delegate for the tests: it takes float FULLY_CONNECTED operators and runs them itself, and those
   that dense_compiler.py made of them, which no runtime knows.

   The structures are those of TFLite's public C interface (tensorflow/lite/core/c/common.h), as far as they are used
   here; tflite-runtime 2.14 and ai-edge-litert 2.3 lay them out alike. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { kOk = 0, kError = 1 };
enum { kFloat32 = 1 };
enum { kAllowDynamicTensors = 1 }; /* Else the runtime prepares its operators first, and knows no compiled one. */
enum { kFullyConnected = 9, kCustom = 32 };
enum { kActNone = 0, kActRelu = 1, kActRelu6 = 3 };

typedef struct { int size; int data[]; } IntArray;
typedef struct { float scale; int32_t zero_point; } QuantizationParams;
typedef struct { int type; void* params; } Quantization;

typedef struct Delegate Delegate;
typedef struct Context Context;

typedef struct {
  int type;
  union { float* f; void* raw; } data;
  IntArray* dims;
  QuantizationParams params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  bool is_variable;
  Delegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  Quantization quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct {
  IntArray* inputs;
  IntArray* outputs;
  IntArray* intermediates;
  IntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  Delegate* delegate;
  bool might_have_side_effect;
} Node;

typedef struct {
  void* (*init)(Context*, const char* buffer, size_t length);
  void (*free)(Context*, void* buffer);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context*, IntArray** plan);
  Tensor* tensors;
  void* impl;
  int (*ResizeTensor)(Context*, Tensor*, IntArray*);
  void (*ReportError)(Context*, const char* message, ...);
  int (*AddTensors)(Context*, int, int*);
  int (*GetNodeAndRegistration)(Context*, int index, Node**, Registration**);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context*, Registration, const IntArray* nodes, Delegate*);
};

struct Delegate {
  void* data;
  int (*Prepare)(Context*, Delegate*);
  void* copy_from_buffer_handle;
  void* copy_to_buffer_handle;
  void* free_buffer_handle;
  int64_t flags;
  void* opaque_delegate_builder;
};

typedef struct {
  Delegate* delegate;
  IntArray* nodes;
  IntArray* inputs;
  IntArray* outputs;
} DelegateParams;

typedef struct { int input, weights, bias, output, activation; } Layer;
typedef struct { int count; Layer layers[]; } Kernel;

static bool is_compiled(const Registration* registration) {
  return registration->builtin_code == kCustom && strcmp(registration->custom_name, "dense-for-tests") == 0;
}

/* The fused activation: its number is the first of the built-in options, and all of a compiled operator's. */
static int activation_of(const Node* node, const Registration* registration) {
  if (is_compiled(registration)) return *(const uint8_t*)node->custom_initial_data;
  return *(const int*)node->builtin_data;
}

static bool takes(Context* context, const Node* node, const Registration* registration) {
  if (registration->builtin_code != kFullyConnected && !is_compiled(registration)) return false;
  if (node->inputs->size < 2) return false;
  for (int i = 0; i < node->inputs->size; i++) {
    int tensor = node->inputs->data[i];
    if (tensor >= 0 && context->tensors[tensor].type != kFloat32) return false;
  }
  int activation = activation_of(node, registration);
  return activation == kActNone || activation == kActRelu || activation == kActRelu6;
}

static void* kernel_init(Context* context, const char* buffer, size_t length) {
  (void)length;
  const DelegateParams* params = (const DelegateParams*)buffer;
  Kernel* kernel = malloc(sizeof(Kernel) + params->nodes->size * sizeof(Layer));
  kernel->count = params->nodes->size;
  for (int i = 0; i < kernel->count; i++) {
    Node* node;
    Registration* registration;
    context->GetNodeAndRegistration(context, params->nodes->data[i], &node, &registration);
    kernel->layers[i] = (Layer){
        .input = node->inputs->data[0],
        .weights = node->inputs->data[1],
        .bias = node->inputs->size > 2 ? node->inputs->data[2] : -1,
        .output = node->outputs->data[0],
        .activation = activation_of(node, registration),
    };
  }
  return kernel;
}

static void kernel_free(Context* context, void* buffer) {
  (void)context;
  free(buffer);
}

static bool among(const IntArray* tensors, int wanted) {
  for (int i = 0; i < tensors->size; i++)
    if (tensors->data[i] == wanted) return true;
  return false;
}

/* A tensor that stays inside the piece has no memory of the runtime's: it gets some of the delegate's. */
static int kernel_prepare(Context* context, Node* node) {
  Kernel* kernel = node->user_data;
  for (int i = 0; i < kernel->count; i++) {
    Tensor* output = &context->tensors[kernel->layers[i].output];
    if (among(node->outputs, kernel->layers[i].output)) continue;
    output->data.raw = realloc(output->data.raw, output->bytes);
    if (output->data.raw == NULL) return kError;
  }
  return kOk;
}

static int kernel_invoke(Context* context, Node* node) {
  const Kernel* kernel = node->user_data;
  for (int i = 0; i < kernel->count; i++) {
    const Layer* layer = &kernel->layers[i];
    const Tensor* weights = &context->tensors[layer->weights];
    const float* x = context->tensors[layer->input].data.f;
    const float* bias = layer->bias < 0 ? NULL : context->tensors[layer->bias].data.f;
    float* y = context->tensors[layer->output].data.f;
    int units = weights->dims->data[0], depth = weights->dims->data[1];
    int rows = (int)(context->tensors[layer->input].bytes / sizeof(float)) / depth;
    for (int row = 0; row < rows; row++)
      for (int unit = 0; unit < units; unit++) {
        float sum = bias ? bias[unit] : 0.0f;
        for (int k = 0; k < depth; k++) sum += x[row * depth + k] * weights->data.f[unit * depth + k];
        if (layer->activation != kActNone && sum < 0) sum = 0;
        if (layer->activation == kActRelu6 && sum > 6) sum = 6;
        y[row * units + unit] = sum;
      }
  }
  return kOk;
}

static int delegate_prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (context->GetExecutionPlan(context, &plan) != kOk) return kError;
  int most = delegate->data ? *(int*)delegate->data : plan->size;
  IntArray* taken = malloc(sizeof(IntArray) + plan->size * sizeof(int));
  taken->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != kOk) continue;
    if (taken->size < most && takes(context, node, registration)) taken->data[taken->size++] = plan->data[i];
  }
  Registration kernel = {
      .init = kernel_init,
      .free = kernel_free,
      .prepare = kernel_prepare,
      .invoke = kernel_invoke,
      .custom_name = "DenseForTests",
      .version = 1,
  };
  int status = taken->size ? context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, taken, delegate) : kOk;
  free(taken);
  return status;
}

/* Options: `most`, how many operators it takes at most. Any other one is refused. */
Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  int* most = NULL;
  for (size_t i = 0; i < count; i++) {
    if (strcmp(keys[i], "most") != 0) {
      report("the only option is most");
      free(most);
      return NULL;
    }
    most = realloc(most, sizeof(int));
    *most = atoi(values[i]);
  }
  Delegate* delegate = calloc(1, sizeof(Delegate));
  delegate->data = most;
  delegate->Prepare = delegate_prepare;
  delegate->flags = kAllowDynamicTensors;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) {
  if (delegate == NULL) return; /* Python destroys what was never made, too. */
  free(delegate->data);
  free(delegate);
}
