/* napi.h: what addon.c uses of Node-API, declared by hand, so that building it needs no headers of Node.
 *
 * Node-API is a stable ABI: these names, and versions up to 6, are in each Node from 14 on
 * (https://nodejs.org/api/n-api.html; node_api.h and js_native_api.h). Node itself has the functions: nothing is
 * linked.
 */
#ifndef SSA_NAPI_H
#define SSA_NAPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef struct napi_threadsafe_function__ *napi_threadsafe_function;
typedef int napi_status; /* 0 (napi_ok): it was done */

typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);
typedef void (*napi_finalize)(napi_env env, void *data, void *hint);
typedef void (*napi_threadsafe_function_call_js)(napi_env env, napi_value callback, void *context, void *data);

enum { NAPI_NONBLOCKING = 0, NAPI_AUTO_LENGTH = -1, NAPI_VERSION_USED = 6 };

napi_status napi_get_cb_info(napi_env env, napi_callback_info info, size_t *count, napi_value *arguments,
                             napi_value *this_value, void **data);
napi_status napi_get_value_int32(napi_env env, napi_value value, int32_t *result);
napi_status napi_get_value_string_utf8(napi_env env, napi_value value, char *to, size_t room, size_t *length);
napi_status napi_get_buffer_info(napi_env env, napi_value value, void **data, size_t *length);
napi_status napi_get_array_length(napi_env env, napi_value value, uint32_t *length);
napi_status napi_get_element(napi_env env, napi_value object, uint32_t index, napi_value *result);
napi_status napi_get_undefined(napi_env env, napi_value *result);

napi_status napi_create_int32(napi_env env, int32_t value, napi_value *result);
napi_status napi_create_array(napi_env env, napi_value *result);
napi_status napi_create_object(napi_env env, napi_value *result);
napi_status napi_create_buffer_copy(napi_env env, size_t length, const void *data, void **copy, napi_value *result);
napi_status napi_create_string_utf8(napi_env env, const char *text, size_t length, napi_value *result);
napi_status napi_create_function(napi_env env, const char *name, size_t length, napi_callback call, void *data,
                                 napi_value *result);
napi_status napi_set_element(napi_env env, napi_value object, uint32_t index, napi_value value);
napi_status napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value);
napi_status napi_call_function(napi_env env, napi_value this_value, napi_value function, size_t count,
                               const napi_value *arguments, napi_value *result);

napi_status napi_set_instance_data(napi_env env, void *data, napi_finalize finalize, void *hint);
napi_status napi_get_instance_data(napi_env env, void **data);
napi_status napi_add_env_cleanup_hook(napi_env env, void (*hook)(void *), void *argument);

napi_status napi_create_threadsafe_function(napi_env env, napi_value function, napi_value resource, napi_value name,
                                            size_t queue, size_t threads, void *finalize_data, napi_finalize finalize,
                                            void *context, napi_threadsafe_function_call_js call,
                                            napi_threadsafe_function *result);
napi_status napi_call_threadsafe_function(napi_threadsafe_function function, void *data, int mode);
napi_status napi_ref_threadsafe_function(napi_env env, napi_threadsafe_function function);
napi_status napi_unref_threadsafe_function(napi_env env, napi_threadsafe_function function);

#endif
