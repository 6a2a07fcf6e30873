"""The processes of a node's other lanes: started, fed, watched and replaced by the daemon.

    daemon --- supervisor --- one socket pair per worker --- worker: driver, TUN queue, UDP port

What is said over the pipe is decided in `overlay.lanes`; here it is carried. A worker ends when its
pipe does, so none outlives its daemon, however that ended.

Reading order: `pipe`, `setup`, `worker`, `supervisor`.
"""
