# A script language at work: dictionaries, strings, objects, calls. Prints a checksum.
class Tree:
    __slots__ = ("key", "left", "right")

    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

    def insert(self, key):
        node = self
        while True:
            if key < node.key:
                if node.left is None:
                    node.left = Tree(key)
                    return
                node = node.left
            else:
                if node.right is None:
                    node.right = Tree(key)
                    return
                node = node.right

    def depth(self):
        return 1 + max(self.left.depth() if self.left else 0, self.right.depth() if self.right else 0)


def words(count):
    state = 1
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2147483648
        yield f"w{(state >> 8) % 997}"


counts = {}
for word in words(40000):
    counts[word] = counts.get(word, 0) + 1
total = 0
for word in sorted(counts):
    total = (total * 31 + counts[word] * len(word)) % 1000003
tree = Tree(500)
for number in [int(word[1:]) for word in words(1200)]:
    tree.insert(number)
print(total, tree.depth(), ",".join(str(i * i) for i in range(5000))[-20:])
