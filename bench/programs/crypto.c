// OpenSSL's ciphers, with whatever instructions the CPU offers.
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { SIZE = 1 << 20 };

static unsigned char* data(void) {
  static unsigned char* bytes;
  if (bytes == NULL) {
    bytes = malloc(SIZE);
    if (bytes == NULL) die("malloc");
    fill_text(bytes, SIZE);
  }
  return bytes;
}

static uint64_t first_bytes(const unsigned char* bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

static uint64_t run_aes_gcm(void) {
  static const unsigned char key[32] = {1, 2, 3};
  static const unsigned char nonce[12] = {4, 5, 6};
  static unsigned char out[SIZE];
  unsigned char tag[16];
  int length;
  uint64_t sum = 0;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  for (int i = 0; i < 20; ++i) {
    if (EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(context, out, &length, data(), SIZE) != 1 ||
        EVP_EncryptFinal_ex(context, out, &length) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, 16, tag) != 1) {
      die("AES-GCM");
    }
    sum = sum * 31 + first_bytes(tag);
  }
  EVP_CIPHER_CTX_free(context);
  return sum;
}

static uint64_t run_chacha20(void) {
  static const unsigned char key[32] = {7, 8, 9};
  static const unsigned char nonce[16] = {1};
  static unsigned char out[SIZE];
  int length;
  uint64_t sum = 0;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  for (int i = 0; i < 10; ++i) {
    if (EVP_EncryptInit_ex(context, EVP_chacha20(), NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(context, out, &length, data(), SIZE) != 1) {
      die("ChaCha20");
    }
    sum = sum * 31 + first_bytes(out + i);
  }
  EVP_CIPHER_CTX_free(context);
  return sum;
}

static uint64_t digests(const EVP_MD* kind, int times) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  uint64_t sum = 0;
  for (int i = 0; i < times; ++i) {
    if (EVP_Digest(data(), SIZE, digest, NULL, kind, NULL) != 1) die("digest");
    sum = sum * 31 + first_bytes(digest);
  }
  return sum;
}

static uint64_t run_sha256(void) { return digests(EVP_sha256(), 10); }
static uint64_t run_sha512(void) { return digests(EVP_sha512(), 10); }

// What verifying an ECDSA signature on P-256 costs: u1 * G + u2 * Q with fixed numbers (FIPS 186-5, 6.4.2).
static uint64_t run_ecdsa(void) {
  EC_GROUP* group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
  EC_POINT* key = EC_POINT_new(group);
  EC_POINT* result = EC_POINT_new(group);
  BIGNUM* number = BN_new();
  unsigned char bytes[65];
  for (int i = 0; i < 32; ++i) bytes[i] = (unsigned char)(i * 29 + 3);
  BN_bin2bn(bytes, 32, number);
  if (EC_POINT_mul(group, key, number, NULL, NULL, NULL) != 1) die("P-256");
  uint64_t sum = 0;
  for (int i = 0; i < 200; ++i) {
    if (BN_add_word(number, 12345) != 1 || EC_POINT_mul(group, result, number, key, number, NULL) != 1 ||
        EC_POINT_point2oct(group, result, POINT_CONVERSION_UNCOMPRESSED, bytes, sizeof bytes, NULL) != sizeof bytes) {
      die("P-256");
    }
    sum = checksum(sum, bytes, sizeof bytes);
  }
  BN_free(number);
  EC_POINT_free(key);
  EC_POINT_free(result);
  EC_GROUP_free(group);
  return sum;
}

// What a signature costs: a 2048-bit modular exponentiation with fixed numbers, as RSA does it without its key's
// primes.
static uint64_t run_rsa(void) {
  BN_CTX* context = BN_CTX_new();
  BIGNUM* base = BN_new();
  BIGNUM* exponent = BN_new();
  BIGNUM* modulus = BN_new();
  BIGNUM* result = BN_new();
  unsigned char bytes[256];
  for (int i = 0; i < 256; ++i) bytes[i] = (unsigned char)(i * 73 + 41);
  bytes[0] = 0x7f;
  BN_bin2bn(bytes, 256, base);
  bytes[7] ^= 0x55;
  BN_bin2bn(bytes, 256, exponent);
  bytes[0] = 0xff;
  bytes[255] |= 1;
  BN_bin2bn(bytes, 256, modulus);
  uint64_t sum = 0;
  for (int i = 0; i < 15; ++i) {
    if (BN_mod_exp_mont_consttime(result, base, exponent, modulus, context, NULL) != 1) die("RSA");
    sum = sum * 31 + BN_mod_word(result, 1000003);
  }
  BN_free(base);
  BN_free(exponent);
  BN_free(modulus);
  BN_free(result);
  BN_CTX_free(context);
  return sum;
}

const struct bench crypto_benches[] = {{"simd", "aes-gcm", run_aes_gcm},
                                       {"simd", "chacha20", run_chacha20},
                                       {"simd", "sha-256", run_sha256},
                                       {"simd", "sha-512", run_sha512},
                                       {"simd", "ecdsa", run_ecdsa},
                                       {"simd", "rsa-2048", run_rsa},
                                       {NULL, NULL, NULL}};
