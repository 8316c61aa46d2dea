"""Streams the files of a directory: server.py DIRECTORY HOST:PORT"""

import pathlib
import sys
from concurrent import futures

import grpc
import stream_pb2
import stream_pb2_grpc

CHUNK = 64 * 1024


class Stream(stream_pb2_grpc.StreamServicer):
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    def Download(self, request, context):
        with open(self.directory / pathlib.PurePath(request.filename).name, "rb") as file:
            while content := file.read(CHUNK):
                yield stream_pb2.Chunk(content=content)


def main(directory, address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    stream_pb2_grpc.add_StreamServicer_to_server(Stream(directory), server)
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
