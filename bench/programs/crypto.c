// OpenSSL's ciphers, with whatever instructions the CPU offers.
#include <openssl/bn.h>
#include <openssl/evp.h>
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
  for (int i = 0; i < 50; ++i) {
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

static uint64_t run_sha256(void) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  uint64_t sum = 0;
  for (int i = 0; i < 25; ++i) {
    if (EVP_Digest(data(), SIZE, digest, NULL, EVP_sha256(), NULL) != 1) die("SHA-256");
    sum = sum * 31 + first_bytes(digest);
  }
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
  for (int i = 0; i < 40; ++i) {
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

const struct bench crypto_benches[] = {
    {"aes-gcm", run_aes_gcm}, {"sha-256", run_sha256}, {"rsa-2048", run_rsa}, {NULL, NULL}};
