// Paging in IA-32e mode.
//   Source   Intel SDM vol. 3, chapter 4
#include "payload.h"

CASE(not_present_read)
  mov ebx, PAGE(0) + 0x123
  FAULTS(PF, 0, mov al, [rbx])
  IS([last_cr2], PAGE(0) + 0x123)
  END
CASE(not_present_write)
  mov ebx, PAGE(0)
  FAULTS(PF, PF_W, mov [rbx], al)
  IS([last_cr2], PAGE(0))
  END
